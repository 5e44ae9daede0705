//! A registry over HTTP (OCI distribution specification 1.1).

mod answer;
mod auth;
mod blobs;
mod body;
mod brought;
mod challenge;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod lists;
mod manifests;
mod transport;
mod uploads;

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Url;

use super::{
    Access, BlobOutcome, FetchedManifest, ManifestName, Referrer, Registry, RegistryError,
};
use crate::credentials::RegistryCredentials;
use crate::http::HttpClient;
use crate::oci::{BlobSource, Descriptor, MediaType, Repository, Sha256Digest, Tag};

use auth::Scopes;
use brought::Brought;
use transport::{Call, Target, Transport};

/// One repository of a registry.
pub(super) struct RemoteRegistry {
    repository: Repository,
    host: String,
    name: String,
    transport: Arc<Transport>,
    brought: Brought,
}

impl RemoteRegistry {
    pub(super) fn new(
        host: &str,
        name: &str,
        scheme: Scheme,
        http: &HttpClient,
        credentials: Arc<RegistryCredentials>,
        access: Access,
    ) -> Result<Self, RegistryError> {
        let target = Target {
            host: host.to_owned(),
            repository: format!("{host}/{name}"),
            base: address(host, scheme)?,
            access,
        };
        Ok(Self {
            repository: Repository::Registry {
                host: host.to_owned(),
                name: name.to_owned(),
            },
            host: host.to_owned(),
            name: name.to_owned(),
            transport: Arc::new(Transport::new(target, http, credentials)),
            brought: Brought::default(),
        })
    }

    /// `/v2/NAME/…`; `rest` is made of digests, tags and fixed words, which need no escapes.
    fn url(&self, rest: &str) -> Url {
        let mut url = self.transport.target.base.clone();
        url.set_path(&format!("/v2/{}/{rest}", self.name));
        url
    }

    fn scopes(&self) -> Scopes {
        let actions = match self.transport.target.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        vec![format!("repository:{}:{actions}", self.name)]
    }

    fn call(&self, method: Method, url: Url) -> Call {
        Call {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            scopes: self.scopes(),
        }
    }
}

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// HTTPS, except for loopback hosts and those that the user named.
    pub(super) fn of(host: &str, plain_http_hosts: &[String]) -> Self {
        if is_loopback(host) || plain_http_hosts.iter().any(|plain| plain == host) {
            Self::Http
        } else {
            Self::Https
        }
    }
}

/// Where a registry is spoken to.
fn address(host: &str, scheme: Scheme) -> Result<Url, RegistryError> {
    // Docker Hub's name is not its address.
    let api_host = match host {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    };
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    Url::parse(&format!("{scheme}://{api_host}/")).map_err(|error| RegistryError::Malformed {
        what: format!("the registry's host {host:?}"),
        problem: error.to_string(),
    })
}

/// Whether a host (perhaps with a port) is this machine: `127.0.0.0/8`, `::1`, `localhost`.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[async_trait]
impl Registry for RemoteRegistry {
    fn repository(&self) -> &Repository {
        &self.repository
    }

    async fn manifest_descriptor(
        &self,
        name: &ManifestName,
    ) -> Result<Option<Descriptor>, RegistryError> {
        self.head_manifest(name).await
    }

    async fn manifest(
        &self,
        name: &ManifestName,
    ) -> Result<Option<FetchedManifest>, RegistryError> {
        self.get_manifest(name).await
    }

    async fn has_blob(&self, digest: &Sha256Digest) -> Result<bool, RegistryError> {
        let there = self.head_blob(digest).await;
        if !matches!(there, Ok(true)) {
            self.brought.forget(digest);
        }
        there
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, RegistryError> {
        self.get_blob(descriptor).await
    }

    async fn put_blob(
        &self,
        blob: &Arc<dyn BlobSource>,
        mount_candidates: &[Repository],
    ) -> Result<BlobOutcome, RegistryError> {
        let digest = blob.descriptor().digest;
        let work = self.mount_or_upload(blob, mount_candidates);
        self.brought.once(digest, work).await
    }

    async fn put_manifest(
        &self,
        name: &ManifestName,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        self.write_manifest(name, media_type, bytes).await
    }

    async fn delete_tag(&self, tag: &Tag) -> Result<bool, RegistryError> {
        self.delete_manifest_tag(tag).await
    }

    async fn tags(&self) -> Result<Vec<Tag>, RegistryError> {
        self.list_tags().await
    }

    async fn referrers(&self, digest: &Sha256Digest) -> Result<Vec<Referrer>, RegistryError> {
        self.list_referrers(digest).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_named_hosts_are_spoken_to_in_the_clear() {
        for host in ["127.0.0.1:5000", "127.1.2.3", "localhost:80", "[::1]:5000"] {
            assert_eq!(Scheme::of(host, &[]), Scheme::Http, "{host}");
        }
        for host in [
            "registry.test",
            "localhost.evil.test",
            "127.0.0.1.evil.test:5000",
            "[2001:db8::1]:5000",
            "10.0.0.1",
        ] {
            assert_eq!(Scheme::of(host, &[]), Scheme::Https, "{host}");
        }
        let named = ["registry.test:5000".to_owned()];
        assert_eq!(Scheme::of("registry.test:5000", &named), Scheme::Http);
        assert_eq!(Scheme::of("registry.test", &named), Scheme::Https);
    }

    #[test]
    fn docker_hub_has_another_address() {
        assert_eq!(
            address("docker.io", Scheme::Https).unwrap().as_str(),
            "https://registry-1.docker.io/"
        );
    }
}
