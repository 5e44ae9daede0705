//! From a repository's name to the backend that serves it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::credentials::RegistryCredentials;
use crate::http::HttpClient;
use crate::oci::Repository;

use super::certificates::{client, folder_of};
use super::layout::Layout;
use super::remote::{RemoteRegistry, Scheme};
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
    /// `certs.d` folders, see
    /// [`certificate_folders_of_process`](super::certificate_folders_of_process). A host
    /// that has a folder there is spoken to over TLS, even if it is a loopback host.
    pub certificate_folders: Vec<PathBuf>,
}

/// Opens a repository. Makes no request, and creates nothing.
///
/// # Errors
/// [`RegistryError::Malformed`] if the host is none, or its certificates are of no use.
pub fn open(
    repository: &Repository,
    http: &HttpClient,
    credentials: &Arc<RegistryCredentials>,
    options: &OpenOptions,
) -> Result<Arc<dyn Registry>, RegistryError> {
    let (host, name) = match repository {
        Repository::Layout { path } => return Ok(Arc::new(Layout::new(path.clone()))),
        Repository::Registry { host, name } => (host, name),
    };
    let certificates = folder_of(host, &options.certificate_folders);
    let http = match &certificates {
        Some(folder) => &client(http, folder)?,
        None => http,
    };
    let scheme = match certificates.is_some() {
        true => Scheme::Https,
        false => Scheme::of(host, &options.plain_http_hosts),
    };
    let credentials = Arc::clone(credentials);
    let registry = RemoteRegistry::new(host, name, scheme, http, credentials, options.access)?;
    Ok(Arc::new(registry))
}
