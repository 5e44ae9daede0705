//! Opens what a command reaches over the network, with one HTTP client and one identity.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::arguments::{
    AuthMethodArgument, AuthenticationArguments, BuildArguments, ConfigArguments,
    EnvironmentArguments, RepositoryArguments,
};
use super::caching::CacheArguments;
use super::context::Context;
use super::interrupt;
use crate::artifacts::{Build, BuildError, Target, Workspace};
use crate::bucket;
use crate::clock::SystemClock;
use crate::credentials::{
    AuthMethod, RegistryCredentials, Secret, TokenSource, VaultOptions, VaultSettings, token_source,
};
use crate::develop::ProjectPython;
use crate::environment::{Environment, EnvironmentKey, OpenBase, Options, Retire};
use crate::http::{HttpClient, HttpOptions, TlsVerification};
use crate::oci::Repository;
use crate::progress::{Event, Progress};
use crate::registry::{self, Access, OpenOptions, Registry, RegistryError};
use crate::ui::{CommandError, Exit};

/// Clients that share connections and credentials. Opening them makes no request.
pub(super) struct Services {
    http: HttpClient,
    tokens: Arc<dyn TokenSource>,
    credentials: Arc<RegistryCredentials>,
    plain_http_hosts: Vec<String>,
}

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

/// [`Services`] that are set up when somebody asks for a repository: reading the machine's
/// certificates takes longer than a build in which nothing has changed.
pub(super) struct LazyServices<'a> {
    method: AuthMethod,
    authentication: &'a AuthenticationArguments,
    repository: &'a RepositoryArguments,
    opened: OnceLock<Services>,
}

impl<'a> LazyServices<'a> {
    /// Resolves the environment that is built for, and settles how we would log in.
    pub(super) fn of_build(
        workspace: &Workspace,
        arguments: &'a BuildArguments,
    ) -> Result<(Target, Self), CommandError> {
        let target = workspace.target(arguments.config.target_of_build(&arguments.repository))?;
        let method = auth_method(&target, &arguments.authentication)?;
        warn_of_unverified_vault(&method, workspace.progress().as_ref());
        let services = Self {
            method,
            authentication: &arguments.authentication,
            repository: &arguments.repository,
            opened: OnceLock::new(),
        };
        Ok((target, services))
    }

    /// A way to open repositories for reading: base images.
    pub(super) fn opener(
        &self,
    ) -> impl Fn(&Repository) -> Result<Arc<dyn Registry>, RegistryError> + Sync {
        |repository| self.registry(repository, Access::Pull)
    }

    /// A repository.
    pub(super) fn registry(
        &self,
        repository: &Repository,
        access: Access,
    ) -> Result<Arc<dyn Registry>, RegistryError> {
        let services = match self.opened.get() {
            Some(services) => services,
            None => {
                let services = self.open(repository)?;
                self.opened.get_or_init(|| services)
            }
        };
        services.registry(repository, access)
    }

    fn open(&self, repository: &Repository) -> Result<Services, RegistryError> {
        let http = HttpClient::new(&http_options(self.authentication)).map_err(|source| {
            RegistryError::Unreachable {
                registry: repository.to_string(),
                source: Box::new(source),
            }
        })?;
        let tokens = token_source(&self.method, &http)?;
        Ok(Services::assemble(
            http,
            tokens,
            &self.method,
            self.repository,
        ))
    }
}

/// The project's Python, with all that its code imports.
pub(super) fn project_python(
    context: &Context,
    workspace: &Workspace,
    config: &ConfigArguments,
    authentication: &AuthenticationArguments,
) -> Result<ProjectPython, CommandError> {
    let interpreter = workspace.interpreter().map_err(BuildError::from)?;
    let import_paths = if interpreter.bigflow.is_some() {
        Vec::new()
    } else {
        let arguments = BuildArguments {
            config: config.clone(),
            repository: RepositoryArguments::default(),
            authentication: authentication.clone(),
            cache: CacheArguments::default(),
        };
        let (target, services) = LazyServices::of_build(workspace, &arguments)?;
        let open = services.opener();
        let build = Build::new(workspace, &target, &open)?;
        context.block_on(async { Ok(build.import_paths(&interpreter).await?) })?
    };
    Ok(ProjectPython {
        interpreter,
        import_paths,
        directory: workspace.project().directory.clone(),
    })
}

pub(super) fn http_options(authentication: &AuthenticationArguments) -> HttpOptions {
    HttpOptions {
        extra_certificates: authentication.ca_file.clone(),
        ..HttpOptions::default()
    }
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
        let environment = services.environment(workspace, &target, permissions)?;
        Ok(Self {
            target,
            services,
            environment,
        })
    }
}

impl Services {
    /// Settles who we are.
    pub(super) fn new(
        target: &Target,
        authentication: &AuthenticationArguments,
        repository: &RepositoryArguments,
        progress: &dyn Progress,
    ) -> Result<Self, CommandError> {
        let http = HttpClient::new(&http_options(authentication))?;
        let method = auth_method(target, authentication)?;
        warn_of_unverified_vault(&method, progress);
        let tokens = token_source(&method, &http)?;
        Ok(Self::assemble(http, tokens, &method, repository))
    }

    fn assemble(
        http: HttpClient,
        tokens: Arc<dyn TokenSource>,
        method: &AuthMethod,
        repository: &RepositoryArguments,
    ) -> Self {
        let credentials = RegistryCredentials::of_process(method, Arc::clone(&tokens));
        Self {
            http,
            tokens,
            credentials: Arc::new(credentials),
            plain_http_hosts: repository.insecure_registry.clone(),
        }
    }

    /// A way to open repositories for reading: base images.
    pub(super) fn opener(
        &self,
    ) -> impl Fn(&Repository) -> Result<Arc<dyn Registry>, RegistryError> + Sync {
        |repository| self.registry(repository, Access::Pull)
    }

    fn registry(
        &self,
        repository: &Repository,
        access: Access,
    ) -> Result<Arc<dyn Registry>, RegistryError> {
        let options = open_options(access, &self.plain_http_hosts);
        registry::open(repository, &self.http, &self.credentials, &options)
    }

    /// The environment, with its bucket and its registry.
    fn environment(
        &self,
        workspace: &Workspace,
        target: &Target,
        permissions: Permissions,
    ) -> Result<Environment, CommandError> {
        let repository = target.repository()?.relative_to(target.project_directory());
        let key = EnvironmentKey {
            project: workspace.project().spec.name.clone(),
            environment: target.environment.clone(),
        };
        let bucket = bucket::open(
            &target.bucket()?,
            &self.http,
            Some(Arc::clone(&self.tokens)),
        )?;
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
            self.registry(&repository, Access::Push)?,
            Arc::clone(workspace.store()),
            Arc::new(SystemClock),
            Arc::clone(workspace.progress()),
            options,
        )
        .with_bases(self.base_opener(target)))
    }

    /// The same opener for as long as somebody likes; a layout's path is seen from the project.
    fn base_opener(&self, target: &Target) -> OpenBase {
        let (http, credentials) = (self.http.clone(), Arc::clone(&self.credentials));
        let options = open_options(Access::Pull, &self.plain_http_hosts);
        let directory = target.project_directory().to_owned();
        Arc::new(move |repository| {
            let repository = repository.clone().relative_to(&directory);
            registry::open(&repository, &http, &credentials, &options)
        })
    }
}

fn open_options(access: Access, plain_http_hosts: &[String]) -> OpenOptions {
    OpenOptions {
        access,
        plain_http_hosts: plain_http_hosts.to_vec(),
        certificate_folders: registry::certificate_folders_of_process(),
    }
}

pub(super) fn auth_method(
    target: &Target,
    arguments: &AuthenticationArguments,
) -> Result<AuthMethod, CommandError> {
    if let Some(path) = &arguments.access_token_file {
        return Ok(AuthMethod::AccessTokenFile(path.clone()));
    }
    match arguments.auth_method {
        AuthMethodArgument::LocalAccount => Ok(AuthMethod::LocalAccount),
        AuthMethodArgument::Vault => {
            let configured = |key| -> Result<Option<String>, CommandError> {
                let text = target
                    .text(key)
                    .map_err(crate::artifacts::BuildError::from)?;
                Ok(text.map(str::to_owned))
            };
            let given = |flag: &Option<String>, key| match flag {
                Some(text) => Ok(Some(text.clone())),
                None => configured(key),
            };
            let options = VaultOptions {
                endpoint: given(&arguments.vault_endpoint, "vault_endpoint")?,
                verify: given(&arguments.vault_endpoint_verify, "vault_endpoint_verify")?,
                secret: arguments.vault_secret.clone().map(Secret::new),
                configured_secret: configured("vault_secret")?.map(Secret::new),
                role_id: arguments.vault_role_id.clone(),
                secret_id_file: arguments.vault_secret_id_file.clone(),
                jwt_file: arguments.vault_jwt_file.clone(),
                role: arguments.vault_role.clone(),
                auth_mount: arguments.vault_auth_mount.clone(),
            };
            let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
            let settings = VaultSettings::resolve(options, &variable)
                .map_err(|error| CommandError::from_error(Exit::Usage, &error))?;
            Ok(AuthMethod::Vault(Box::new(settings)))
        }
    }
}

/// Said at every command, until it is mended.
fn warn_of_unverified_vault(method: &AuthMethod, progress: &dyn Progress) {
    if let AuthMethod::Vault(settings) = method
        && settings.verify == TlsVerification::Off
    {
        progress.report(Event::Warning(format!(
            "the certificate of Vault at {} is NOT verified: whoever sits on the line can read the Vault token and the Google token; \
             name the authority instead, with --vault-endpoint-verify PATH or VAULT_CACERT",
            settings.endpoint.host_str().unwrap_or_default()
        )));
    }
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

/// Who we are to colleagues: `USER@HOST`.
pub(super) fn holder() -> String {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = variable("USER")
        .or_else(|| variable("LOGNAME"))
        .unwrap_or_else(|| "somebody".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .or_else(|| variable("HOSTNAME"))
        .unwrap_or_else(|| "an unnamed machine".to_owned());
    format!("{user}@{host}")
}
