//! Which environment, and how it is reached.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::authentication::AuthenticationArguments;
use super::cache::CacheArguments;
use crate::artifacts::{ImageOptions, TargetOptions};
use crate::wheels::Platform;

/// Which environment.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ConfigArguments {
    /// The environment, as deployment_config.py names it: dev, prod [default: $bf_env, else the default one]
    #[arg(short, long, value_name = "ENVIRONMENT")]
    pub(in crate::cli) config: Option<String>,

    /// Where deployment_config.py is (also -dc)
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) deployment_config_path: Option<PathBuf>,
}

/// Where the image goes.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct RepositoryArguments {
    /// The image repository, instead of the environment's docker_repository: HOST/NAME or oci:FOLDER
    #[arg(short = 'r', long, value_name = "REPOSITORY")]
    pub(in crate::cli) docker_repository: Option<String>,

    /// Use plain HTTP for this registry (loopback addresses need no permission)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(in crate::cli) insecure_registry: Vec<String>,
}

/// Where the DAG files go.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct BucketArguments {
    /// The bucket, instead of the environment's dags_bucket: NAME, gs://NAME, s3://NAME,
    /// az://CONTAINER or file://FOLDER
    #[arg(short = 'b', long, value_name = "BUCKET")]
    pub(in crate::cli) dags_bucket: Option<String>,

    /// Accepted for BigFlow's sake: the bucket's name says enough
    #[arg(short = 'p', long, value_name = "PROJECT", hide_short_help = true)]
    pub(in crate::cli) gcp_project_id: Option<String>,
}

impl ConfigArguments {
    /// What these flags say about the target of a command that reaches no bucket.
    pub(in crate::cli) fn target_of_build(
        &self,
        repository: &RepositoryArguments,
    ) -> TargetOptions {
        TargetOptions {
            environment: self.config.clone(),
            deployment_config: self.deployment_config_path.clone(),
            docker_repository: repository.docker_repository.clone(),
            dags_bucket: None,
        }
    }
}

/// What commands take that make artifacts and reach no bucket.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct BuildArguments {
    /// Which environment.
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArguments,
    /// Where the image goes.
    #[command(flatten)]
    pub(in crate::cli) repository: RepositoryArguments,
    /// Who we are.
    #[command(flatten)]
    pub(in crate::cli) authentication: AuthenticationArguments,
    /// Where others have built.
    #[command(flatten)]
    pub(in crate::cli) cache: CacheArguments,
    /// What the image is.
    #[command(flatten)]
    pub(in crate::cli) image: ImageArguments,
}

/// What the image is, if it is not what the settings say.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct ImageArguments {
    /// What the image is built for, for example linux/amd64,linux/arm64: several become one image index [default: platforms of [tool.forebay.image], else linux/amd64]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(in crate::cli) platform: Vec<Platform>,

    /// Install the wheel that the project's own build makes, as BigFlow does: for what only setuptools knows. Otherwise the project's layer is made without Python [default: wheel of [tool.forebay.image]]
    #[arg(long)]
    pub(in crate::cli) wheel: bool,
}

impl ImageArguments {
    pub(in crate::cli) fn options(&self) -> ImageOptions {
        ImageOptions {
            platforms: self.platform.clone(),
            own_wheel: self.wheel,
        }
    }
}

/// One environment, with all that is needed to reach it.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct EnvironmentArguments {
    /// Which environment.
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArguments,
    /// Where the image goes.
    #[command(flatten)]
    pub(in crate::cli) repository: RepositoryArguments,
    /// Where the DAG files go.
    #[command(flatten)]
    pub(in crate::cli) bucket: BucketArguments,
    /// Who we are.
    #[command(flatten)]
    pub(in crate::cli) authentication: AuthenticationArguments,
}

impl EnvironmentArguments {
    /// What these flags say about the target.
    pub(in crate::cli) fn target(&self) -> TargetOptions {
        TargetOptions {
            dags_bucket: self.bucket.dags_bucket.clone(),
            ..self.config.target_of_build(&self.repository)
        }
    }
}

/// What all deploys take.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct DeployArguments {
    /// Which environment.
    #[command(flatten)]
    pub(in crate::cli) environment: EnvironmentArguments,

    /// Where others have built.
    #[command(flatten)]
    pub(in crate::cli) cache: CacheArguments,

    /// What the image is.
    #[command(flatten)]
    pub(in crate::cli) image: ImageArguments,

    /// Write files of ours that somebody changed anew
    #[arg(long)]
    pub(in crate::cli) restore_drift: bool,

    /// Let an older commit replace a newer one
    #[arg(long)]
    pub(in crate::cli) allow_older: bool,
}
