//! The base image: manifest and configuration, by digest. Its layers stay
//! where they are, unless nothing else says where its Python looks for packages.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use forebay_store::{Realisation, Recipe, Store};
use serde::Serialize;
use serde_json::{Map, Value};

use super::ImageError;
use super::base_python::{self, BasePython};
use crate::oci::{
    Descriptor, ImageIndex, ImageManifest, ImageReference, MediaType, Repository, Sha256Digest, Tag,
};
use crate::registry::{ManifestName, Registry};
use crate::wheels::{Platform, TargetPython};

/// Bytes that a configuration may have.
const MAX_CONFIG: u64 = 8 << 20;

/// What an image stands on.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseImage {
    /// Where its layers are; `None` for `scratch`.
    pub repository: Option<Repository>,
    /// As the Dockerfile names it, without what only this machine knows.
    pub name: Option<String>,
    /// The digest of its manifest; `None` for `scratch`.
    pub manifest: Option<Sha256Digest>,
    /// Its layers, with OCI media types.
    pub layers: Vec<Descriptor>,
    /// The diff ids of its layers.
    pub diff_ids: Vec<Sha256Digest>,
    /// What it runs on.
    pub platform: Platform,
    /// Its Python.
    pub python: BasePython,
    /// Its configuration, as it is.
    pub config: Map<String, Value>,
}

/// Which image is wanted as a base.
pub struct BaseRequest<'a> {
    /// Its name.
    pub reference: &'a ImageReference,
    /// The repository that the name is in.
    pub registry: &'a Arc<dyn Registry>,
    /// What it has to run on.
    pub platform: Platform,
    /// Asks again what a tag means now. Otherwise a tag means what it meant
    /// when it was first asked for, as with Docker's local images.
    pub refresh: bool,
    /// Where its Python looks for packages, if that was found before.
    pub known_python: Option<BasePython>,
}

/// What a base's name and platform stand for.
#[derive(Serialize)]
struct Inputs<'a> {
    repository: String,
    reference: &'a str,
    platform: Platform,
}

const MANIFEST: &str = "manifest";
const CONFIG: &str = "config";

impl BaseImage {
    /// `FROM scratch`, for a given CPython: the layers are then meant to be put
    /// on top of something that has it.
    pub fn scratch(major: u8, minor: u8, platform: Platform) -> Self {
        Self {
            repository: None,
            name: None,
            manifest: None,
            layers: Vec::new(),
            diff_ids: Vec::new(),
            platform,
            python: BasePython::official(major, minor),
            config: Map::new(),
        }
    }

    /// Finds a base: in the store if its digest is known, otherwise in its registry.
    ///
    /// # Errors
    /// A base that is not there, not for the platform, or without Python.
    pub async fn resolve(request: &BaseRequest<'_>, store: &Store) -> Result<Self, ImageError> {
        let (manifest, config) = lookup(request, store).await?;
        Self::read(request, &manifest, &config, store).await
    }

    /// The layers of any image with their diff ids; it needs no Python.
    ///
    /// # Errors
    /// See [`BaseImage::resolve`].
    pub async fn layers_of(
        reference: &ImageReference,
        registry: &Arc<dyn Registry>,
        platform: Platform,
        store: &Store,
    ) -> Result<Vec<(Descriptor, Sha256Digest)>, ImageError> {
        let request = BaseRequest {
            reference,
            registry,
            platform,
            refresh: false,
            known_python: None,
        };
        let (manifest, config) = lookup(&request, store).await?;
        let (_, layers, diff_ids) = parse(reference, &manifest, &config)?;
        Ok(layers.into_iter().zip(diff_ids).collect())
    }

    async fn read(
        request: &BaseRequest<'_>,
        manifest: &[u8],
        config: &[u8],
        store: &Store,
    ) -> Result<Self, ImageError> {
        let name = request.reference.to_string();
        let digest = Sha256Digest::of(manifest);
        let (config, layers, diff_ids) = parse(request.reference, manifest, config)?;
        if let Some(platform) = other_platform(&config, request.platform) {
            return Err(ImageError::Base {
                name,
                problem: format!(
                    "it is made for {platform}, and an image for {} is wanted: name the base by a tag or an index that has both",
                    request.platform
                ),
            });
        }
        let triggers = config
            .get("config")
            .and_then(|config| config.get("OnBuild"))
            .and_then(Value::as_array);
        if triggers.is_some_and(|triggers| !triggers.is_empty()) {
            return Err(ImageError::Base {
                name,
                problem: "it has ONBUILD lines, which would run in front of the Dockerfile's: \
                          write them into the Dockerfile, and take the image that it was made of"
                    .to_owned(),
            });
        }
        let environment = environment_of(&config);
        let said = BasePython::from_environment(&environment);
        let mut python = match said.or_else(|| request.known_python.clone()) {
            Some(python) => python,
            None => base_python::find(request.registry, &layers, &digest, &name, store).await?,
        };
        python.is_musl |= names_alpine(&name) || made_of_alpine(&config);
        Ok(Self {
            name: match &request.reference.repository {
                Repository::Registry { .. } => Some(name),
                Repository::Layout { .. } => None,
            },
            repository: Some(request.reference.repository.clone()),
            manifest: Some(digest),
            layers,
            diff_ids,
            platform: request.platform,
            python,
            config,
        })
    }

    /// What wheels for this base are meant for.
    pub fn target(&self) -> TargetPython {
        TargetPython {
            major: self.python.major,
            minor: self.python.minor,
            platform: self.platform,
        }
    }

    /// Whether its environment says which Python it has; otherwise its layers were read.
    pub fn says_its_python(&self) -> bool {
        BasePython::from_environment(&self.environment()).is_some()
    }

    /// ENV of the base.
    pub fn environment(&self) -> BTreeMap<String, String> {
        environment_of(&self.config)
    }

    /// WORKDIR of the base.
    pub fn working_directory(&self) -> Option<&str> {
        self.config.get("config")?.get("WorkingDir")?.as_str()
    }
}

/// Manifest and configuration, from the store if they were asked for before.
async fn lookup(
    request: &BaseRequest<'_>,
    store: &Store,
) -> Result<(Vec<u8>, Vec<u8>), ImageError> {
    let reference = request.reference;
    let manifest_name = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => ManifestName::Digest(*digest),
        (None, Some(tag)) => ManifestName::Tag(tag.clone()),
        (None, None) => ManifestName::Tag(Tag::latest()),
    };
    let inputs = Inputs {
        repository: reference.repository.to_string(),
        reference: &manifest_name.to_string(),
        platform: request.platform,
    };
    let key = Recipe::new("base-image", 1, &inputs)?.key();
    let is_tag = matches!(manifest_name, ManifestName::Tag(_));
    let known = if is_tag && request.refresh {
        None
    } else {
        store.realisation(&key)?
    };
    let outputs = known.unwrap_or_default().outputs;
    if let (Some(manifest), Some(config)) = (outputs.get(MANIFEST), outputs.get(CONFIG)) {
        return Ok((store.read(manifest)?, store.read(config)?));
    }
    let (manifest, config) = fetch(request, &manifest_name).await?;
    let mut batch = store.begin()?;
    let mut realisation = Realisation::default();
    for (output, bytes) in [(MANIFEST, &manifest), (CONFIG, &config)] {
        let object = batch.put(bytes)?.digest;
        realisation.outputs.insert(output.to_owned(), object);
    }
    batch.realise(&key, &realisation)?;
    batch.commit()?;
    Ok((manifest, config))
}

type Parsed = (Map<String, Value>, Vec<Descriptor>, Vec<Sha256Digest>);

/// The configuration, and the layers with their diff ids.
fn parse(reference: &ImageReference, manifest: &[u8], config: &[u8]) -> Result<Parsed, ImageError> {
    let refused = |problem: String| ImageError::Base {
        name: reference.to_string(),
        problem,
    };
    let manifest: ImageManifest = serde_json::from_slice(manifest)
        .map_err(|error| refused(format!("its manifest is not valid: {error}")))?;
    let config: Map<String, Value> = serde_json::from_slice(config)
        .map_err(|error| refused(format!("its configuration is not valid: {error}")))?;
    let diff_ids: Vec<Sha256Digest> = config
        .get("rootfs")
        .and_then(|rootfs| rootfs.get("diff_ids"))
        .cloned()
        .and_then(|ids| serde_json::from_value(ids).ok())
        .ok_or_else(|| refused("its configuration names no layers".to_owned()))?;
    if diff_ids.len() != manifest.layers.len() {
        return Err(refused(
            "its configuration and its manifest name different numbers of layers".to_owned(),
        ));
    }
    let layers = manifest.layers.into_iter().map(with_oci_type).collect();
    Ok((config, layers, diff_ids))
}

/// The platform that a configuration names, if it is another than `wanted`.
fn other_platform(config: &Map<String, Value>, wanted: Platform) -> Option<String> {
    let said = |key| config.get(key).and_then(Value::as_str);
    let (os, architecture) = (said("os")?, said("architecture")?);
    let is_wanted = os == wanted.os() && architecture == wanted.architecture();
    (!is_wanted).then(|| format!("{os}/{architecture}"))
}

/// Whether an image's name says that it is Alpine: `python:3.11-alpine3.20`. The folders
/// of a layout, and of a registry's repositories, say nothing for sure.
fn names_alpine(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split('@')
        .next()
        .is_some_and(|last| last.contains("alpine"))
}

/// Whether an image's history shows Alpine's root file system or its package
/// manager. Official images say so, and are known without a look into their layers.
fn made_of_alpine(config: &Map<String, Value>) -> bool {
    config
        .get("history")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|step| step.get("created_by")?.as_str())
        .any(|line| line.contains("alpine-minirootfs") || line.contains("apk add"))
}

fn environment_of(config: &Map<String, Value>) -> BTreeMap<String, String> {
    config
        .get("config")
        .and_then(|config| config.get("Env"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|variable| variable.as_str()?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Docker's layer types as the OCI types of the same bytes.
pub(super) fn with_oci_type(descriptor: Descriptor) -> Descriptor {
    let media_type = match descriptor.media_type.as_str() {
        MediaType::DOCKER_LAYER_GZIP => MediaType::new(MediaType::OCI_LAYER_GZIP),
        "application/vnd.docker.image.rootfs.diff.tar" => {
            MediaType::new("application/vnd.oci.image.layer.v1.tar")
        }
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            MediaType::new("application/vnd.oci.image.layer.v1.tar+zstd")
        }
        _ => descriptor.media_type,
    };
    Descriptor {
        media_type,
        ..descriptor
    }
}

/// Asks the registry for manifest and configuration.
async fn fetch(
    request: &BaseRequest<'_>,
    name: &ManifestName,
) -> Result<(Vec<u8>, Vec<u8>), ImageError> {
    let refused = |problem: String| ImageError::Base {
        name: request.reference.to_string(),
        problem,
    };
    let absent = || refused("there is no such image".to_owned());
    let registry = request.registry;
    let mut manifest = registry.manifest(name).await?.ok_or_else(absent)?;
    if manifest.descriptor.media_type.is_index() {
        let index: ImageIndex = serde_json::from_slice(&manifest.bytes)
            .map_err(|error| refused(format!("its index is not valid: {error}")))?;
        let wanted = request.platform.to_string();
        let entries = &index.manifests;
        let entry = entries
            .iter()
            .find(|entry| entry.platform().as_deref() == Some(wanted.as_str()))
            .ok_or_else(|| {
                let there: Vec<String> = entries.iter().filter_map(|e| e.platform()).collect();
                refused(format!(
                    "it is not there for {wanted}, only for {}",
                    there.join(", ")
                ))
            })?;
        manifest = registry
            .manifest(&ManifestName::Digest(entry.descriptor.digest))
            .await?
            .ok_or_else(absent)?;
    }
    let parsed: ImageManifest = serde_json::from_slice(&manifest.bytes)
        .map_err(|error| refused(format!("its manifest is not valid: {error}")))?;
    if parsed.config.size > MAX_CONFIG {
        return Err(refused(format!(
            "its configuration has more than {} MiB",
            MAX_CONFIG >> 20
        )));
    }
    let mut reader = registry.blob(&parsed.config).await?;
    let config = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    })
    .await
    .map_err(|error| refused(error.to_string()))?
    .map_err(ImageError::io("cannot read the base's configuration"))?;
    Ok((manifest.bytes.to_vec(), config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpine_is_known_by_name_or_history() {
        for (name, expected) in [
            ("docker.io/library/python:3.11-alpine", true),
            ("registry.test:5000/python-alpine:3.11", true),
            ("docker.io/library/python:3.11-slim", false),
            ("alpine.test/python:3.11", false),
        ] {
            assert_eq!(names_alpine(name), expected, "{name}");
        }
        let history = |line: &str| {
            let config =
                serde_json::json!({"history": [{"empty_layer": true}, {"created_by": line}]});
            made_of_alpine(config.as_object().unwrap())
        };
        assert!(history(
            "ADD alpine-minirootfs-3.20.0-x86_64.tar.gz / # buildkit"
        ));
        assert!(history(
            "RUN /bin/sh -c set -eux; apk add --no-cache ca-certificates"
        ));
        assert!(!history("RUN /bin/sh -c apt-get update"));
        assert!(!made_of_alpine(&Map::new()));
    }
}
