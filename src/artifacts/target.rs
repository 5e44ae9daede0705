//! Where an environment's artifacts go: what `deployment_config.py` says, and
//! what the command line replaces.

use std::path::{Path, PathBuf};

use forebay_store::Store;

use super::BuildError;
use super::placeholder::left_in;
use crate::bucket::BucketLocation;
use crate::environment::DagsPrefix;
use crate::oci::Repository;
use crate::project::{
    ConfigError, DeploymentConfig, EnvironmentName, EnvironmentSettings, FindInterpreter, Project,
    Property, ResolvedConfig, process_variables,
};

/// What the user says about the target on the command line.
#[derive(Debug, Clone, Default)]
pub struct TargetOptions {
    /// Which environment; otherwise `$bf_env`, otherwise the configuration's default.
    pub environment: Option<String>,
    /// Another place of `deployment_config.py`.
    pub deployment_config: Option<PathBuf>,
    /// Replaces `docker_repository`.
    pub docker_repository: Option<String>,
    /// Replaces `dags_bucket`.
    pub dags_bucket: Option<String>,
}

/// One environment of a project.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub environment: EnvironmentName,
    /// `[tool.forebay.environments.NAME]`.
    pub settings: EnvironmentSettings,
    config: Option<ResolvedConfig>,
    variables: Vec<String>,
    declared_repository: Option<String>,
    specified_repository: Option<String>,
    config_path: PathBuf,
    options: TargetOptions,
    project_directory: PathBuf,
}

impl Target {
    /// The environment that is called so when neither file nor command line names one.
    const UNNAMED: &'static str = "default";

    /// Resolves the environment. Warnings of the configuration are handed to `warn`.
    pub(super) fn resolve(
        project: &Project,
        options: TargetOptions,
        interpreter: FindInterpreter<'_>,
        store: &Store,
        warn: &dyn Fn(String),
    ) -> Result<Self, BuildError> {
        let config_path = match &options.deployment_config {
            Some(path) => path.clone(),
            None => project.deployment_config_path(),
        };
        // A file that the user names must be there; the usual one may be replaced by flags.
        let named = options.deployment_config.is_some();
        let (config, variables, declared_repository) = if named || config_path.exists() {
            let loaded = DeploymentConfig::load_remembered(&config_path, interpreter, Some(store))?;
            loaded.warnings.into_iter().for_each(warn);
            let chosen = options.environment.as_deref();
            let resolved = loaded.config.resolve(chosen, &process_variables())?;
            let declared = declared_repository(&loaded.config);
            (Some(resolved), loaded.variables, declared)
        } else {
            (None, Vec::new(), None)
        };
        let environment: EnvironmentName = match &config {
            Some(config) => config.environment.clone(),
            None => options
                .environment
                .as_deref()
                .unwrap_or(Self::UNNAMED)
                .parse()?,
        };
        let settings = project
            .settings
            .environments
            .get(&environment)
            .cloned()
            .unwrap_or_default();
        Ok(Self {
            environment,
            settings,
            config,
            variables,
            declared_repository,
            specified_repository: project.spec.docker_repository.clone(),
            config_path,
            options,
            project_directory: project.directory.clone(),
        })
    }

    /// The image repository as it was written, which is how DAG files name it: on the command
    /// line, in the environment, or in the project's specification.
    ///
    /// # Errors
    /// It is missing.
    pub fn repository_text(&self) -> Result<&str, BuildError> {
        const KEY: &str = "docker_repository";
        let configured = match &self.config {
            Some(config) => config.text(KEY)?,
            None => None,
        };
        let given = self.options.docker_repository.as_deref();
        let specified = self.specified_repository.as_deref();
        let text = match given.or(configured).or(specified) {
            Some(text) => text,
            None => self.property(KEY, None)?,
        };
        self.without_placeholder(KEY, text)
    }

    /// The image repository.
    ///
    /// It is missing, or names no repository.
    pub fn repository(&self) -> Result<Repository, BuildError> {
        self.repository_text()?
            .parse()
            .map_err(|source| BuildError::Repository {
                environment: self.environment.to_string(),
                source,
            })
    }

    /// The bucket.
    ///
    /// # Errors
    /// It is missing, or names no bucket.
    pub fn bucket(&self) -> Result<BucketLocation, BuildError> {
        const KEY: &str = "dags_bucket";
        let text = self.property(KEY, self.options.dags_bucket.as_deref())?;
        let text = self.without_placeholder(KEY, text)?;
        let location: BucketLocation = text.parse().map_err(|source| BuildError::Bucket {
            environment: self.environment.to_string(),
            source,
        })?;
        Ok(location.relative_to(&self.project_directory))
    }

    /// The folder of the bucket that the DAG files go to: `dags_prefix` of
    /// `[tool.forebay.environments.NAME]`, else of `deployment_config.py`, else `dags/`.
    ///
    /// # Errors
    /// It is no folder that Composer reads.
    pub fn dags_prefix(&self) -> Result<DagsPrefix, BuildError> {
        const KEY: &str = "dags_prefix";
        let text = match &self.settings.dags_prefix {
            Some(text) => Some(text.as_str()),
            None => self.text(KEY)?,
        };
        let Some(text) = text else {
            return Ok(DagsPrefix::default());
        };
        let prefix = self.without_placeholder(KEY, text)?.parse();
        prefix.map_err(|source| BuildError::DagsPrefix {
            environment: self.environment.to_string(),
            source,
        })
    }

    fn without_placeholder<'a>(
        &self,
        property: &'static str,
        text: &'a str,
    ) -> Result<&'a str, BuildError> {
        let properties: Vec<_> = self.properties().collect();
        match left_in(property, text, &properties) {
            None => Ok(text),
            Some(placeholder) => Err(BuildError::Placeholder {
                environment: self.environment.to_string(),
                placeholder: Box::new(placeholder),
            }),
        }
    }

    /// An optional property, for instance `vault_endpoint`.
    ///
    /// # Errors
    /// It is there but is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        match &self.config {
            Some(config) => config.text(key),
            None => Ok(None),
        }
    }

    /// Refuses to go on without a deployment configuration.
    ///
    /// # Errors
    /// There is none.
    pub fn require_configuration(&self) -> Result<(), BuildError> {
        match self.config {
            Some(_) => Ok(()),
            None => Err(BuildError::NoDeploymentConfig {
                path: self.config_path.clone(),
                missing: "environment",
            }),
        }
    }

    /// All properties, in BigFlow's order; none without a deployment configuration.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &Property)> {
        self.config.iter().flat_map(ResolvedConfig::properties)
    }

    /// The environment variables that the configuration's own code read; `*` for all of them.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// The repository that the project itself names, in whichever environment: what BigFlow
    /// writes into the project's wheel.
    pub(super) fn declared_repository(&self) -> Option<&str> {
        self.declared_repository.as_deref()
    }

    /// The project's directory, which relative folders are seen from.
    pub fn project_directory(&self) -> &Path {
        &self.project_directory
    }

    fn property<'a>(
        &'a self,
        key: &'static str,
        given: Option<&'a str>,
    ) -> Result<&'a str, BuildError> {
        match (given, &self.config) {
            (Some(given), _) => Ok(given),
            (None, Some(config)) => Ok(config.required(key)?),
            (None, None) => Err(BuildError::NoDeploymentConfig {
                path: self.config_path.clone(),
                missing: key,
            }),
        }
    }
}

/// `docker_repository` of the default environment, from the file alone: it becomes
/// part of the image, which must be the same for every environment and on every machine.
fn declared_repository(config: &DeploymentConfig) -> Option<String> {
    let default = config.resolve(None, &[]).ok()?;
    Some(default.text("docker_repository").ok()??.to_owned())
}
