//! Flags that several commands share, named as BigFlow names them.

mod authentication;
mod cache;
mod dags;
mod environment;
mod global;
mod spelling;

pub(super) use authentication::{AuthMethodArgument, AuthenticationArguments};
pub(super) use cache::CacheArguments;
pub(super) use dags::{DagArguments, DagFormatArgument, DeployedDagArguments, ReplacingArguments};
pub(super) use environment::{
    BuildArguments, ConfigArguments, DeployArguments, EnvironmentArguments, ImageArguments,
    RepositoryArguments,
};
pub(super) use global::GlobalArguments;
pub(super) use spelling::spell_out;
