//! From a repository's name to the backend that serves it.

use std::sync::Arc;

use crate::credentials::RegistryCredentials;
use crate::http::HttpClient;
use crate::oci::Repository;

use super::layout::Layout;
use super::remote::RemoteRegistry;
use super::{Registry, RegistryError};

/// What a repository is opened for. A registry's token is asked for this and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Only reading: base images. Works without credentials on public repositories.
    Pull,
    /// Reading and writing.
    #[default]
    Push,
}

/// How a repository is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// For reading alone, or for writing too.
    pub access: Access,
    /// Hosts (with their port, as the repository names them) that are spoken
    /// to without TLS beside the loopback hosts, because the user asked for it.
    pub plain_http_hosts: Vec<String>,
}

/// Opens a repository. Makes no request, and creates nothing.
///
/// # Errors
/// [`RegistryError::Malformed`] if the host is none.
pub fn open(
    repository: &Repository,
    http: &HttpClient,
    credentials: &Arc<RegistryCredentials>,
    options: &OpenOptions,
) -> Result<Arc<dyn Registry>, RegistryError> {
    Ok(match repository {
        Repository::Layout { path } => Arc::new(Layout::new(path.clone())),
        Repository::Registry { host, name } => Arc::new(RemoteRegistry::new(
            host,
            name,
            http,
            Arc::clone(credentials),
            options,
        )?),
    })
}
