//! What `forebay doctor` has found.

use serde::Serialize;

use crate::ui::{CommandError, Exit};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) about: &'static str,
    pub(super) verdict: Verdict,
    /// What is so.
    pub(super) says: String,
    /// What mends it; null where nothing needs to be mended.
    pub(super) remedy: Option<String>,
    #[serde(skip)]
    pub(super) exit: Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Good,
    Warning,
    Bad,
}

impl Finding {
    /// It is as it should be.
    pub(super) fn good(about: &'static str, says: impl Into<String>) -> Self {
        Self {
            about,
            verdict: Verdict::Good,
            says: says.into(),
            remedy: None,
            exit: Exit::Done,
        }
    }

    /// A deploy can work, but something will be missed.
    pub(super) fn warning(
        about: &'static str,
        says: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warning,
            remedy: Some(remedy.into()),
            ..Self::good(about, says)
        }
    }

    /// A deploy would fail.
    pub(super) fn bad(about: &'static str, failure: &CommandError) -> Self {
        Self {
            verdict: Verdict::Bad,
            remedy: failure.next_step().map(str::to_owned),
            exit: failure.exit(),
            ..Self::good(about, failure.reason())
        }
    }
}
