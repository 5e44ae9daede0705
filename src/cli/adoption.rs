//! What becomes of the DAG files that BigFlow has left: found at the first deploy, decided by
//! a flag or by a person.

use super::arguments::ReplacingArguments;
use super::ask;
use crate::environment::{Environment, EnvironmentError, Live, OldFiles};
use crate::ui::{CommandError, count};

/// What was found, and what becomes of it.
pub(super) struct Adoption {
    pub(super) files: OldFiles,
    pub(super) decision: Decision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// They become a generation.
    Adopt,
    /// They stay as they are, and run beside the new ones.
    Leave,
    /// Nobody has said; a plan shows what adoption would do.
    Open,
}

impl Decision {
    fn of(arguments: &ReplacingArguments) -> Self {
        match (arguments.adopt, arguments.no_adopt) {
            (true, _) => Self::Adopt,
            (false, true) => Self::Leave,
            (false, false) => Self::Open,
        }
    }
}

/// Looks for such files where no DAG was ever live. `writes`: adopts them; otherwise only
/// says what would be live then.
pub(super) async fn adopt(
    environment: &Environment,
    live: Live,
    arguments: &ReplacingArguments,
    writes: bool,
    can_ask: bool,
) -> Result<(Live, Option<Adoption>), CommandError> {
    let mut decision = Decision::of(arguments);
    if decision == Decision::Leave {
        return Ok((live, None));
    }
    let Some(files) = environment.find_old_files(&live).await? else {
        return Ok((live, None));
    };
    if writes && decision == Decision::Open {
        if !can_ask {
            return Err(files.undecided().into());
        }
        decision = match question(&files) {
            true => Decision::Adopt,
            false => Decision::Leave,
        };
    }
    let live = match (decision, writes) {
        (Decision::Leave, _) => live,
        (_, true) => environment.adopt(live, &files).await?,
        (_, false) => environment.foresee_adoption(live, &files)?,
    };
    Ok((live, Some(Adoption { files, decision })))
}

fn question(files: &OldFiles) -> bool {
    let number = files.files().len();
    let mut lines = vec![format!(
        "{} of this project that Forebay did not deploy:",
        count(number, "DAG file")
    )];
    if let EnvironmentError::OldFiles { files } = files.undecided() {
        lines.extend(files.iter().map(|file| format!("  {file}")));
    }
    lines.push("Left alone, they run beside the new ones.".to_owned());
    ask::show(&lines);
    ask::confirm(
        "Adopt them: record them as a generation that can be rolled back to, and replace them now?",
        true,
    )
}

/// The files that a rollback can restore from now on.
pub(super) fn adopted_keys(adoption: Option<&Adoption>) -> Vec<String> {
    let adopted = adoption.filter(|adoption| adoption.decision != Decision::Leave);
    let files = adopted
        .into_iter()
        .flat_map(|adoption| adoption.files.files());
    files
        .filter(|file| file.can_be_restored())
        .map(|file| file.key.to_string())
        .collect()
}
