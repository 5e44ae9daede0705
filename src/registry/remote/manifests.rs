//! Manifests: asked for, read, written.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::RemoteRegistry;
use super::answer::Problem;
use crate::http::read_body;
use crate::oci::{Descriptor, MediaType, Sha256Digest, Tag};
use crate::registry::{FetchedManifest, ManifestName, RegistryError};

/// The largest manifest that is read; registries must take 4 MiB and rarely take more.
const MAX_MANIFEST: usize = 8 << 20;

/// Every manifest that we can read: without them a registry may convert or refuse.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

impl RemoteRegistry {
    pub(super) async fn head_manifest(
        &self,
        name: &ManifestName,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let response = match self.ask_for_manifest(Method::HEAD, name).await {
            // The method is refused, not the question.
            Err(RegistryError::Unexpected { status: 405, .. }) => {
                return Ok((self.get_manifest(name).await?).map(|manifest| manifest.descriptor));
            }
            answer => answer?,
        };
        let Some(response) = response else {
            return Ok(None);
        };
        let headers = response.headers();
        let digest = self.stated_digest(headers, name)?;
        let size = (headers.get(CONTENT_LENGTH))
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        match (digest, media_type(headers), size) {
            (Some(digest), Some(media_type), Some(size)) => Ok(Some(Descriptor {
                media_type,
                digest,
                size,
                annotations: Default::default(),
            })),
            // An old or odd registry does not say; the bytes do.
            _ => Ok((self.get_manifest(name).await?).map(|manifest| manifest.descriptor)),
        }
    }

    pub(super) async fn get_manifest(
        &self,
        name: &ManifestName,
    ) -> Result<Option<FetchedManifest>, RegistryError> {
        let what = format!(
            "the manifest {name} of {}",
            self.transport.target.repository
        );
        let malformed = |problem: String| RegistryError::Malformed {
            what: what.clone(),
            problem,
        };
        let mut failures = 0;
        let (headers, bytes) = loop {
            let Some(response) = self.ask_for_manifest(Method::GET, name).await? else {
                return Ok(None);
            };
            let headers = response.headers().clone();
            match read_body(response, MAX_MANIFEST).await {
                Ok(bytes) => break (headers, bytes),
                Err(error) => {
                    failures += 1;
                    self.transport.pause_or_fail(failures, error).await?;
                }
            }
        };
        let bytes =
            bytes.ok_or_else(|| malformed(format!("it has more than {MAX_MANIFEST} bytes")))?;
        let stated = self.stated_digest(&headers, name)?;
        let media_type = media_type(&headers)
            .ok_or_else(|| malformed("the answer has no media type".to_owned()))?;
        let descriptor = Descriptor::of(media_type, &bytes);
        match stated {
            Some(stated) if stated != descriptor.digest => Err(RegistryError::Damaged {
                what,
                expected: stated.to_string(),
                actual: descriptor.digest.to_string(),
            }),
            _ => Ok(Some(FetchedManifest { descriptor, bytes })),
        }
    }

    pub(super) async fn write_manifest(
        &self,
        name: &ManifestName,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        let digest = Sha256Digest::of(&bytes);
        let mut call = self.call(Method::PUT, self.url(&format!("manifests/{name}")));
        let content_type =
            HeaderValue::from_str(media_type.as_str()).map_err(|_| RegistryError::Malformed {
                what: "the manifest's media type".to_owned(),
                problem: format!("{media_type:?} is no header value"),
            })?;
        call.headers.insert(CONTENT_TYPE, content_type);
        call.body = bytes;
        let response = self.transport.send(&call).await?;
        let status = response.status();
        if status.is_success() {
            let written = ManifestName::Digest(digest);
            self.stated_digest(response.headers(), &written)?;
            return Ok(());
        }
        let problem = Problem::of(response).await;
        // The older code says the same of a manifest that names what is not there.
        if problem.has("MANIFEST_BLOB_UNKNOWN") || problem.has("BLOB_UNKNOWN") {
            return Err(RegistryError::BlobsMissing {
                repository: self.transport.target.repository.clone(),
                digests: problem.digests,
            });
        }
        Err((self.transport)
            .error(&call.method, &call.url, status, problem)
            .await)
    }

    pub(super) async fn delete_manifest_tag(&self, tag: &Tag) -> Result<bool, RegistryError> {
        let call = self.call(Method::DELETE, self.url(&format!("manifests/{tag}")));
        let response = self.transport.send(&call).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(true),
            // Registries that delete nothing, or digests only.
            StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Ok(false),
            _ => Err((self.transport)
                .problem(&call.method, &call.url, response)
                .await),
        }
    }

    async fn ask_for_manifest(
        &self,
        method: Method,
        name: &ManifestName,
    ) -> Result<Option<reqwest::Response>, RegistryError> {
        let mut call = self.call(method, self.url(&format!("manifests/{name}")));
        call.headers
            .insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let response = self.transport.send(&call).await?;
        match response.status() {
            StatusCode::OK => Ok(Some(response)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err((self.transport)
                .problem(&call.method, &call.url, response)
                .await),
        }
    }

    /// The digest that is asked for, or else the one that the registry states.
    /// If there are both, they must agree.
    fn stated_digest(
        &self,
        headers: &HeaderMap,
        name: &ManifestName,
    ) -> Result<Option<Sha256Digest>, RegistryError> {
        let stated = (headers.get("docker-content-digest"))
            .and_then(|value| value.to_str().ok()?.parse::<Sha256Digest>().ok());
        match (name, stated) {
            (ManifestName::Digest(asked), Some(stated)) if *asked != stated => {
                Err(RegistryError::Damaged {
                    what: format!("the manifest of {}", self.transport.target.repository),
                    expected: asked.to_string(),
                    actual: stated.to_string(),
                })
            }
            (ManifestName::Digest(asked), _) => Ok(Some(*asked)),
            (ManifestName::Tag(_), stated) => Ok(stated),
        }
    }
}

fn media_type(headers: &HeaderMap) -> Option<MediaType> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or(value).trim();
    (!essence.is_empty()).then(|| MediaType::new(essence))
}
