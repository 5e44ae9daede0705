//! What all deploys and `plan` have in common:
//! build what is not built, look at what is live, compare.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::adoption::{Adoption, Decision};
use super::arguments::DeployArguments;
use super::opened::{Opened, Permissions};
use super::part::Part;
use super::place::{Place, Preparation};
use crate::artifacts::{Build, BuildError, Target, Workspace, keep_build};
use crate::environment::{Environment, GenerationRecord, Plan};
use crate::project::git_ancestors;
use crate::ui::CommandError;

/// A comparison of what is live with what was built.
pub(super) struct Prepared {
    pub(super) environment: Environment,
    pub(super) target: Target,
    pub(super) plan: Plan,
    /// What BigFlow had left, if this is the first deploy.
    pub(super) adoption: Option<Adoption>,
}

/// Builds and compares.
pub(super) async fn prepare(
    workspace: &Workspace,
    arguments: &DeployArguments,
    part: &Part<'_>,
    preparation: Preparation,
) -> Result<Prepared, CommandError> {
    let permissions = Permissions {
        restore_drift: arguments.restore_drift,
        allow_older: arguments.allow_older,
        retire: preparation.replacing.retire(),
        clear_folder: preparation.replacing.clear_dags_folder,
        confirmed: preparation.replacing.yes,
    };
    let Opened {
        target,
        services,
        environment,
    } = Opened::new(workspace, &arguments.environment, permissions)?;
    let authentication = &arguments.environment.authentication;
    let caching = Arc::clone(&preparation.caching);
    caching.open(workspace, &target, &arguments.cache, authentication)?;
    let place = Place::new(environment, preparation);
    let open = services.opener();
    let mut build = None;
    let (live, desired) = match part {
        Part::Folder(folder, arguments) => {
            place.desired_of_folder(&target, folder, arguments).await?
        }
        Part::Earlier(build) => {
            let found = place
                .desired_of_earlier_build(workspace, &target, build)
                .await?;
            let project = workspace.project().spec.name.to_string();
            let environment = target.environment.to_string();
            keep_build(workspace.store(), &project, &environment, part.name())
                .map_err(BuildError::from)?;
            found
        }
        Part::Everything(_) | Part::Dags(_) | Part::Image => {
            let new = Build::new(workspace, &target, &open)?;
            let build = build.insert(new.with_options(arguments.image.options()));
            caching.expect(build)?;
            let found = part.desired_of_build(&place, build, workspace).await?;
            build.keep(part.name())?;
            found
        }
    };
    let (environment, adoption) = place.into_parts();
    let directory = workspace.project().directory.clone();
    let is_ancestor = move |older: &str, newer: &str| is_ancestor(&directory, older, newer);
    let mut plan = environment.plan(live, desired, &is_ancestor).await?;
    if let (Some(build), false) = (&build, plan.is_unchanged()) {
        let limit = GenerationRecord::ANCESTORS;
        let directory = &workspace.project().directory;
        let commit = build.commit();
        let ancestors = commit.map(|git| git_ancestors(directory, &git.commit, limit));
        let contents = build.contents().await?.to_bytes();
        let contents = contents.map_err(BuildError::from)?;
        plan.note(ancestors.unwrap_or_default(), Some(contents.into()));
    }
    if let Some(Adoption {
        files,
        decision: Decision::Open,
    }) = &adoption
    {
        plan.bar(files.undecided());
    }
    Ok(Prepared {
        environment,
        target,
        plan,
        adoption,
    })
}

/// Whether git knows `older` to be contained in `newer`; nothing if it does not know one of them.
fn is_ancestor(directory: &Path, older: &str, newer: &str) -> Option<bool> {
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
