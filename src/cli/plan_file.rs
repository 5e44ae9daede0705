//! A plan in a file: written by `plan --out`, taken by `deploy --plan`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::arguments::{DeployArguments, DeployedDagArguments, ImageArguments};
use crate::environment::SavedPlan;
use crate::ui::{CommandError, Exit};

/// What the file holds (`schema/saved-plan.schema.json`).
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    plan: &'a SavedPlan,
    arguments: Arguments,
}

/// The flags that the plan was made with, and that a deploy of it gets.
#[derive(Debug, Serialize, Deserialize)]
struct Arguments {
    restore_drift: bool,
    allow_older: bool,
    #[serde(flatten)]
    image: ImageArguments,
    #[serde(flatten)]
    dags: DeployedDagArguments,
}

#[derive(Deserialize)]
struct WithArguments {
    arguments: Arguments,
}

/// Writes the file.
pub(super) fn write(
    path: &Path,
    plan: &SavedPlan,
    deploy: &DeployArguments,
    dags: &DeployedDagArguments,
) -> Result<(), CommandError> {
    let document = Document {
        plan,
        arguments: Arguments {
            restore_drift: deploy.restore_drift,
            allow_older: deploy.allow_older,
            image: deploy.image.clone(),
            dags: dags.clone(),
        },
    };
    let text = serde_json::to_string_pretty(&document).map_err(std::io::Error::from);
    let written = text.and_then(|text| std::fs::write(path, text + "\n"));
    written.map_err(|error| {
        CommandError::new(Exit::Failed, format!("cannot write {}", path.display()))
            .why(error.to_string())
            .next("name a file that can be written with --out")
    })
}

/// Reads the file: the plan, and the flags that it was made with in place of those in `deploy`.
pub(super) fn read(
    path: &Path,
    deploy: &DeployArguments,
) -> Result<(SavedPlan, DeployArguments, DeployedDagArguments), CommandError> {
    let no_plan = |problem: String| {
        CommandError::new(
            Exit::Usage,
            format!("{} cannot be used as a plan", path.display()),
        )
        .why(problem)
        .next("name a file that `forebay plan --out FILE` has written")
    };
    let bytes = std::fs::read(path).map_err(|error| no_plan(error.to_string()))?;
    let place = path.display().to_string();
    let plan = SavedPlan::parse(&bytes, &place).map_err(|error| no_plan(error.to_string()))?;
    let WithArguments { arguments } =
        serde_json::from_slice(&bytes).map_err(|error| no_plan(error.to_string()))?;
    let mut deploy = DeployArguments {
        restore_drift: arguments.restore_drift,
        allow_older: arguments.allow_older,
        image: arguments.image,
        ..deploy.clone()
    };
    let config = &mut deploy.environment.config.config;
    config.get_or_insert_with(|| plan.environment.to_string());
    Ok((plan, deploy, arguments.dags))
}
