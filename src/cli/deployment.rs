//! What all deploys and `plan` have in common:
//! build what is not built, look at what is live, compare.

use std::process::Command;

use super::arguments::{DagArguments, DeployArguments};
use super::services::{Permissions, Services};
use crate::build::{Build, ImageNaming, Target, Workspace};
use crate::environment::{Desired, DesiredDags, DesiredImage, Environment, Plan};
use crate::project::git_commit;
use crate::ui::CommandError;

/// What is to be deployed.
pub(super) enum Part<'a> {
    /// Image and DAG files.
    Everything(&'a DagArguments),
    /// The DAG files; the image must be in the registry.
    Dags(&'a DagArguments),
    /// The image; the live DAG files stay.
    Image,
}

/// A comparison of what is live with what was built.
pub(super) struct Prepared {
    pub(super) environment: Environment,
    pub(super) target: Target,
    pub(super) plan: Plan,
}

/// Builds and compares. `settle` ends what another deploy has left unfinished, which writes.
pub(super) async fn prepare(
    workspace: &Workspace,
    arguments: &DeployArguments,
    part: &Part<'_>,
    settle: bool,
) -> Result<Prepared, CommandError> {
    let target = workspace.target(
        arguments
            .config
            .target(&arguments.repository, &arguments.bucket),
    )?;
    let services = Services::new(
        &target,
        &arguments.authentication,
        &arguments.repository,
        workspace.progress().as_ref(),
    )?;
    let permissions = Permissions {
        restore_drift: arguments.restore_drift,
        allow_older: arguments.allow_older,
    };
    let environment = services.environment(workspace, &target, permissions)?;
    let open = services.opener();
    let build = Build::new(workspace, &target, &open)?;

    let image = build.image().await?;
    let digest = *image.digest();
    let dags = match part {
        Part::Image => DesiredDags::Only(Vec::new()),
        Part::Everything(arguments) | Part::Dags(arguments) => {
            let options = arguments.options();
            let named = match options.image_naming(workspace) {
                ImageNaming::Digest => Some(&digest),
                ImageNaming::Tag => None,
            };
            let files = build.dag_files(&options, named).await?;
            match options.workflow {
                Some(_) => DesiredDags::Only(files),
                None => DesiredDags::All(files),
            }
        }
    };
    build.keep(match part {
        Part::Everything(_) => "everything",
        Part::Dags(_) => "dags",
        Part::Image => "image",
    })?;
    let desired = Desired {
        image: match part {
            Part::Dags(_) => DesiredImage::Existing(digest),
            Part::Everything(_) | Part::Image => DesiredImage::Push(build.to_push(&image)?),
        },
        dags,
        version: build.version().clone(),
        git: git_commit(&workspace.project().directory).map(Into::into),
    };

    let live = environment.observe(Some(&digest)).await?;
    let live = if settle {
        environment.settle(live).await?.0
    } else {
        live
    };
    let directory = workspace.project().directory.clone();
    let is_ancestor = move |older: &str, newer: &str| is_ancestor(&directory, older, newer);
    let plan = environment.plan(live, desired, &is_ancestor).await?;
    Ok(Prepared {
        environment,
        target,
        plan,
    })
}

/// Whether git knows `older` to be contained in `newer`; nothing if it does not know one of them.
fn is_ancestor(directory: &std::path::Path, older: &str, newer: &str) -> Option<bool> {
    let status = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["merge-base", "--is-ancestor", older, newer])
        .stderr(std::process::Stdio::null())
        .status()
        .ok()?;
    match status.code() {
        Some(0) => Some(true),
        Some(1) => Some(false),
        _ => None,
    }
}
