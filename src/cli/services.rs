//! Opens what a command reaches over the network, with one HTTP client and one identity.

use std::sync::{Arc, OnceLock};

use super::arguments::{AuthenticationArguments, BuildArguments, RepositoryArguments};
use super::login::{auth_method, http_options, warn_of_unverified_vault};
use crate::artifacts::{Target, Workspace};
use crate::bucket::{self, Bucket, BucketError, BucketLocation};
use crate::credentials::{
    AuthMethod, CredentialError, RegistryCredentials, TokenSource, token_source,
};
use crate::environment::OpenRepository;
use crate::http::HttpClient;
use crate::oci::Repository;
use crate::progress::Progress;
use crate::registry::{self, Access, OpenOptions, Registry, RegistryError};
use crate::ui::CommandError;

/// Clients that share connections and credentials. Opening them makes no request.
pub(super) struct Services {
    http: HttpClient,
    tokens: Arc<dyn TokenSource>,
    credentials: Arc<RegistryCredentials>,
    plain_http_hosts: Vec<String>,
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

    /// Where Google's tokens come from.
    pub(super) fn tokens(&self) -> &dyn TokenSource {
        self.tokens.as_ref()
    }

    /// Who a registry would be told that we are, and which source says so.
    pub(super) async fn registry_login(&self, host: &str) -> Result<String, CredentialError> {
        Ok(self.credentials.login(host).await?.description)
    }

    /// A bucket.
    pub(super) fn bucket(&self, location: &BucketLocation) -> Result<Arc<dyn Bucket>, BucketError> {
        bucket::open(location, &self.http, Some(Arc::clone(&self.tokens)))
    }

    /// A repository.
    pub(super) fn registry(
        &self,
        repository: &Repository,
        access: Access,
    ) -> Result<Arc<dyn Registry>, RegistryError> {
        let options = open_options(access, &self.plain_http_hosts);
        registry::open(repository, &self.http, &self.credentials, &options)
    }

    /// The same as [`Self::opener`] for as long as somebody likes; a layout's path is seen from the project.
    pub(super) fn repository_opener(&self, target: &Target) -> OpenRepository {
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
