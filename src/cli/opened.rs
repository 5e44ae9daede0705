//! The environment that a command works on, and what a user allows to be done to it.

use std::sync::Arc;
use std::time::Duration;

use super::arguments::EnvironmentArguments;
use super::interrupt;
use super::login::holder;
use super::services::Services;
use crate::artifacts::{Target, Workspace};
use crate::clock::SystemClock;
use crate::environment::{Environment, EnvironmentKey, Options, Retire};
use crate::registry::Access;
use crate::ui::{CommandError, Exit};

/// What a user allows a deploy to do beyond the usual.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Permissions {
    /// Files of ours that somebody changed are written anew.
    pub(super) restore_drift: bool,
    /// An older commit may replace a newer one.
    pub(super) allow_older: bool,
    /// What becomes of files that are no longer wanted.
    pub(super) retire: Retire,
    /// Everything else in the folder of DAG files goes.
    pub(super) clear_folder: bool,
    /// What belongs to others may be deleted.
    pub(super) confirmed: bool,
}

/// An environment that a command works on. Opening it makes no request.
pub(super) struct Opened {
    pub(super) target: Target,
    pub(super) services: Services,
    pub(super) environment: Environment,
}

impl Opened {
    /// Resolves the environment and settles how it is reached.
    pub(super) fn new(
        workspace: &Workspace,
        arguments: &EnvironmentArguments,
        permissions: Permissions,
    ) -> Result<Self, CommandError> {
        let target = workspace.target(arguments.target())?;
        let services = Services::new(
            &target,
            &arguments.authentication,
            &arguments.repository,
            workspace.progress().as_ref(),
        )?;
        let environment = open_environment(&services, workspace, &target, permissions)?;
        Ok(Self {
            target,
            services,
            environment,
        })
    }
}

/// The environment, with its bucket and its registry.
fn open_environment(
    services: &Services,
    workspace: &Workspace,
    target: &Target,
    permissions: Permissions,
) -> Result<Environment, CommandError> {
    let repository = target.repository()?.relative_to(target.project_directory());
    let key = EnvironmentKey {
        project: workspace.project().spec.name.clone(),
        environment: target.environment.clone(),
    };
    let bucket = services.bucket(&target.bucket()?)?;
    let options = Options {
        lease: lease()?,
        holder: holder(),
        restore_drift: permissions.restore_drift,
        allow_older: permissions.allow_older,
        retire: permissions.retire,
        clear_folder: permissions.clear_folder,
        confirmed: permissions.confirmed,
        interruption: interrupt::interruption(),
        dags_prefix: target.dags_prefix()?,
    };
    Ok(Environment::new(
        key,
        bucket,
        services.registry(&repository, Access::Push)?,
        Arc::clone(workspace.store()),
        Arc::new(SystemClock),
        Arc::clone(workspace.progress()),
        options,
    )
    .with_repositories(services.repository_opener(target)))
}

fn lease() -> Result<Duration, CommandError> {
    const VARIABLE: &str = "FOREBAY_LEASE_SECONDS";
    match std::env::var(VARIABLE) {
        Err(_) => Ok(Options::DEFAULT_LEASE),
        Ok(text) => match text.parse() {
            Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
            _ => Err(
                CommandError::new(Exit::Usage, format!("{VARIABLE} is {text:?}"))
                    .next("give a number of seconds from 1 to 86400, or unset it"),
            ),
        },
    }
}
