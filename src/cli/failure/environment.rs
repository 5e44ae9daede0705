//! An environment could not be changed, or not be read.

use super::remote::{bucket_exit, bucket_next, registry_exit, registry_next};
use crate::cli::describe::{DriftDocument, describe_keys};
use crate::environment::{Drifted, EnvironmentError};
use crate::ui::{CommandError, Exit};

impl From<EnvironmentError> for CommandError {
    fn from(error: EnvironmentError) -> Self {
        let exit = environment_exit(&error);
        let mut failure = Self::from_error(exit, &error);
        match &error {
            EnvironmentError::Drift { objects } => {
                failure = drifted(failure, objects);
                failure.next(
                    "look with `forebay status`; --restore-drift puts back what was recorded",
                )
            }
            EnvironmentError::Held { remaining, .. } if remaining.as_secs() == 0 => failure
                .next("`forebay resume` carries it to its end, `forebay abort` takes it back; `forebay deploy` does the first by itself"),
            EnvironmentError::Held { generation, .. } => failure.next(format!(
                "wait until it is done, then run the command again; if it was killed, its hold ends by itself, or at once with `forebay unlock {generation}`",
            )),
            EnvironmentError::OtherLock { .. } => failure.next(
                "look with `forebay status`; what was to be unlocked is over",
            ),
            EnvironmentError::NoGeneration { .. } => {
                failure.next("`forebay history` shows the generations")
            }
            EnvironmentError::Lost { .. } => failure.next(
                "look with `forebay status`; run the command again if yours should still win",
            ),
            EnvironmentError::ForeignKeys { owners, .. } if owners.is_empty() => failure.next(
                "if nobody needs them, remove them or write over them with --clear-dags-folder; else rename the workflows, or give this environment a folder of its own with dags_prefix; nothing was changed",
            ),
            EnvironmentError::ForeignKeys { .. } => failure.next(
                "rename the workflows, or give this environment a folder of its own with dags_prefix, as in dags/NAME/; nothing was changed",
            ),
            EnvironmentError::OldFiles { files } => reasons(failure, files).next(
                "--adopt records them as a generation, which can be rolled back to, and replaces them; --no-adopt leaves them running beside the new ones",
            ),
            EnvironmentError::Unconfirmed { keys, owners } => {
                reasons(failure, &describe_keys(keys, owners)).next(
                    "agree with --yes, or deploy without --clear-dags-folder: they stay as they are",
                )
            }
            EnvironmentError::OlderCommit { .. } => failure.next(
                "deploy a commit that contains the live one, or insist with --allow-older",
            ),
            EnvironmentError::RolledAway { .. } => failure.next(
                "deploy what mends it; or insist with --allow-older, or with `forebay rollback GENERATION`",
            ),
            EnvironmentError::StalePlan { differences } => {
                let failure = differences
                    .iter()
                    .fold(failure, |failure, difference| failure.why(difference));
                failure.next("plan again with `forebay plan --out FILE`, and look at it again")
            }
            EnvironmentError::EmptySet => {
                failure.next("check that the project's packages define bigflow.Workflow objects")
            }
            EnvironmentError::ImageMissing { .. } => {
                failure.next("deploy the image first: `forebay deploy-image`")
            }
            EnvironmentError::Interrupted { source, .. } => match source.as_ref() {
                EnvironmentError::Drift { objects } => drifted(failure, objects).next(
                    "`forebay resume` or `forebay abort` with --restore-drift writes over these files and ends what was begun",
                ),
                EnvironmentError::ForeignKeys { .. } => failure.next(
                    "remove or rename those files, then run `forebay resume`; or take back what was begun with `forebay abort`, and --restore-drift if our own files were changed too",
                ),
                EnvironmentError::Stopped { .. } => failure.next(
                    "run `forebay deploy` again, whenever you like: it finishes what was begun and goes on; `forebay abort` takes it back",
                ),
                EnvironmentError::ImageElsewhere { .. } => failure
                    .next("run `forebay resume` with that repository, or `forebay abort`"),
                _ => failure.next(
                "run `forebay deploy` again: it finishes what was begun, once the lease has run out, and goes on",
            )},
            EnvironmentError::PruningStopped { .. } => {
                failure.next("run the command again: it deletes what is left")
            }
            EnvironmentError::NoRollbackTarget { usable, .. }
            | EnvironmentError::RollbackUnavailable { usable, .. } => {
                failure.next(usable_generations(usable))
            }
            EnvironmentError::Newer { .. } => failure.next("update forebay"),
            EnvironmentError::Bucket(error) => bucket_next(failure, error),
            EnvironmentError::Registry(error) => registry_next(failure, error),
            _ => failure.next("look with `forebay status`, then run the command again"),
        }
    }
}

fn drifted(failure: CommandError, objects: &[Drifted]) -> CommandError {
    objects.iter().fold(failure, |failure, object| {
        failure.why(DriftDocument::from(object).to_string())
    })
}

/// The first of many reasons, and how many more there are.
fn reasons(failure: CommandError, reasons: &[String]) -> CommandError {
    const SHOWN: usize = 20;
    let shown = reasons.iter().take(SHOWN);
    let failure = shown.fold(failure, |failure, reason| failure.why(reason));
    match reasons.len().saturating_sub(SHOWN) {
        0 => failure,
        more => failure.why(format!("and {more} more")),
    }
}

fn environment_exit(error: &EnvironmentError) -> Exit {
    match error {
        EnvironmentError::Held { .. } | EnvironmentError::Lost { .. } => Exit::Conflict,
        EnvironmentError::Drift { .. }
        | EnvironmentError::ForeignKeys { .. }
        | EnvironmentError::OldFiles { .. }
        | EnvironmentError::Unconfirmed { .. }
        | EnvironmentError::Foreseen
        | EnvironmentError::OlderCommit { .. }
        | EnvironmentError::StalePlan { .. }
        | EnvironmentError::OtherLock { .. }
        | EnvironmentError::RolledAway { .. }
        | EnvironmentError::EmptySet => Exit::Refused,
        EnvironmentError::Interrupted { .. } | EnvironmentError::NotVerified { .. } => {
            Exit::Interrupted
        }
        EnvironmentError::NoGeneration { .. } => Exit::Usage,
        EnvironmentError::NoRollbackTarget { .. }
        | EnvironmentError::RollbackUnavailable { .. } => Exit::RollbackUnavailable,
        EnvironmentError::Bucket(error) => bucket_exit(error),
        EnvironmentError::Registry(error) => registry_exit(error),
        _ => Exit::Failed,
    }
}

fn usable_generations(usable: &[u64]) -> String {
    match usable {
        [] => "there is no generation to return to; `forebay deploy` makes a new one".to_owned(),
        _ => format!(
            "these can be restored: {}; for example `forebay rollback {}`",
            usable
                .iter()
                .map(u64::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            usable[0]
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::environment::{DriftKind, Owners};

    #[test]
    fn an_interrupted_deploy_names_the_files_that_bar_its_way() {
        let drift = EnvironmentError::Drift {
            objects: vec![Drifted {
                key: "dags/daily.py".parse().unwrap(),
                change: DriftKind::Changed,
            }],
        };
        let foreign = EnvironmentError::ForeignKeys {
            keys: vec!["dags/daily.py".to_owned()],
            owners: Owners::new(),
        };
        for source in [drift, foreign] {
            let failure = CommandError::from(EnvironmentError::Interrupted {
                generation: 2,
                source: Box::new(source),
            });
            let text = failure.render(None);
            assert!(text.contains("dags/daily.py"), "{text}");
            assert!(text.contains("--restore-drift"), "{text}");
            assert_eq!(failure.exit(), Exit::Interrupted);
        }
        for command in ["resume", "abort"] {
            let arguments = ["forebay", command, "--restore-drift"];
            assert!(crate::cli::Arguments::try_parse_from(arguments).is_ok());
        }
    }
}
