//! What Docker and podman know of a registry's TLS: a folder `certs.d/HOST[:PORT]`
//! with the authorities to trust beside the system's (`*.crt`) and the client
//! certificates to show (`NAME.cert` with `NAME.key`). Published in
//! `containers-certs.d(5)` and in Docker's "Verify repository client with certificates".

use std::path::{Path, PathBuf};

use crate::http::{ClientCertificate, HttpClient, HttpOptions};

use super::RegistryError;

/// The `certs.d` folders of this process, the first that has a host counts.
pub fn certificate_folders_of_process() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = variable("HOME").map(PathBuf::from);
    let configuration = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(home.as_ref()?.join(".config")));
    let mut folders = Vec::new();
    folders.extend(configuration.map(|folder| folder.join("containers/certs.d")));
    folders.extend(variable("DOCKER_CONFIG").map(|folder| PathBuf::from(folder).join("certs.d")));
    folders.extend(home.map(|home| home.join(".docker/certs.d")));
    folders.push("/etc/containers/certs.d".into());
    folders.push("/etc/docker/certs.d".into());
    folders
}

/// The folder of a registry's host, if there is one: then it is spoken to over TLS.
pub(super) fn folder_of(host: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    (folders.iter())
        .map(|folder| folder.join(host))
        .find(|folder| folder.is_dir())
}

/// A client for the registry of this folder, with connections of its own.
pub(super) fn client(http: &HttpClient, folder: &Path) -> Result<HttpClient, RegistryError> {
    let unreadable = |source| RegistryError::Io {
        action: format!("cannot read {}", folder.display()),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        files.push(entry.map_err(unreadable)?.path());
    }
    files.sort();
    let has =
        |extension| move |path: &&PathBuf| path.extension().is_some_and(|found| found == extension);
    let mut extra_certificates = http.options().extra_certificates.clone();
    extra_certificates.extend(files.iter().filter(has("crt")).cloned());
    let malformed = |problem: String| RegistryError::Malformed {
        what: format!("the folder {}", folder.display()),
        problem,
    };
    let client_certificate = match files.iter().find(has("cert")) {
        None => None,
        Some(certificate) => {
            let key = certificate.with_extension("key");
            if !key.is_file() {
                return Err(malformed(format!(
                    "{} has no key beside it",
                    certificate.display()
                )));
            }
            Some(ClientCertificate {
                certificate: certificate.clone(),
                key,
            })
        }
    };
    if extra_certificates == http.options().extra_certificates && client_certificate.is_none() {
        return Ok(http.clone());
    }
    let options = HttpOptions {
        extra_certificates,
        client_certificate,
        ..http.options().clone()
    };
    HttpClient::new(&options).map_err(|error| malformed(error.to_string()))
}
