//! What a person is told when a command fails: what happened, why, and what to do next.

use std::fmt::Write as _;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

/// What the program's exit status means; scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done,
    /// Failed; nothing visible changed.
    Failed,
    /// The command line or the project's configuration is wrong.
    Usage,
    /// Changes or drift were found, and `--exit-code` asked for this status.
    Changes,
    /// Authentication or permission.
    Denied,
    /// Another deploy holds or won the environment.
    Conflict,
    /// Refused for safety: drift, an older commit, an empty set of DAGs, a foreign key.
    Refused,
    /// Interrupted while applying; `deploy` or `resume` continues.
    Interrupted,
    /// The rollback target cannot be had.
    RollbackUnavailable,
    /// What `store verify` found, as a sum: 16 missing, 32 corrupt, 64 orphaned.
    Findings(u8),
}

impl Exit {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Changes => 3,
            Self::Denied => 4,
            Self::Conflict => 5,
            Self::Refused => 6,
            Self::Interrupted => 7,
            Self::RollbackUnavailable => 8,
            Self::Findings(bits) => bits,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A failed command, in the three parts that every error message has.
#[derive(Debug)]
pub struct CommandError {
    what: String,
    why: Vec<String>,
    next: Option<String>,
    exit: Exit,
}

impl CommandError {
    /// A failure with nothing but its name.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: Vec::new(),
            next: None,
            exit,
        }
    }

    /// A failure named by an error; the error at the bottom of its causes is the reason.
    /// Those between say what a library was doing, which helps nobody.
    pub fn from_error(exit: Exit, error: &(dyn std::error::Error + 'static)) -> Self {
        let failure = Self::new(exit, error.to_string());
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        match causes.last() {
            Some(cause) => failure.why(cause.to_string()),
            None => failure,
        }
    }

    /// Adds a reason, unless what is said already contains it.
    #[must_use]
    pub fn why(mut self, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        let said = self.what.contains(&reason) || self.why.iter().any(|why| why.contains(&reason));
        if !said && !reason.is_empty() {
            self.why.push(reason);
        }
        self
    }

    /// Says what to do next, unless that was said.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next.get_or_insert_with(|| step.into());
        self
    }

    /// What to do next, if that was said.
    pub fn next_step(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// What happened and why, in one line.
    pub fn reason(&self) -> String {
        let parts = std::iter::once(&self.what).chain(&self.why);
        parts.map(String::as_str).collect::<Vec<_>>().join(": ")
    }

    /// What happened, in one sentence.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The exit status.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The message for a terminal; without `colour` the text alone.
    pub fn render(&self, colour: bool) -> String {
        let style = |style: Style| if colour { style } else { Style::new() };
        let red = style(AnsiColor::Red.on_default().bold());
        let cyan = style(AnsiColor::Cyan.on_default().bold());
        let mut text = String::new();
        let _ = writeln!(text, "{red}error{red:#}: {}", indent(&self.what));
        for why in &self.why {
            let _ = writeln!(text, "  why: {}", indent(why));
        }
        if let Some(next) = &self.next {
            let _ = writeln!(text, "  {cyan}next{cyan:#}: {}", indent(next));
        }
        text
    }

    /// The message for a program: one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": {
                "what": self.what,
                "why": self.why,
                "next": self.next,
                "exit": self.exit.code(),
            }
        })
    }
}

/// Further lines of a part stand below its first.
fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n        ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_what_why_and_next() {
        let error = CommandError::new(Exit::Usage, "there is no environment \"prdo\"")
            .why("deployment_config.py has dev, prod")
            .why("deployment_config.py has dev")
            .next("forebay deploy -c prod");
        assert_eq!(
            error.render(false),
            "error: there is no environment \"prdo\"\n  why: deployment_config.py has dev, prod\n  next: forebay deploy -c prod\n"
        );
        assert!(error.render(true).contains("\u{1b}["));
    }
}
