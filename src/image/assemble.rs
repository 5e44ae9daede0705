//! From layers to configuration and manifest: the last step of every build.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_store::{Realisation, Recipe, Sha256Digest, Store};
use serde::Serialize;

use super::built::{BuiltImage, ImageRequest};
use super::layer::Layer;
use super::plan::ContainerSettings;
use super::{ImageError, config};
use crate::oci::{BytesBlob, Descriptor, MediaType};
use crate::registry::FetchedManifest;
use crate::wheels::InstallScheme;

/// Changes whenever the same layers would give another configuration or manifest.
const RECIPE_VERSION: u32 = 1;
/// When images say that they were made, unless `SOURCE_DATE_EPOCH` says otherwise.
const CREATED: &str = "1980-01-01T00:00:01Z";

/// Everything that decides configuration and manifest.
#[derive(Serialize)]
struct Inputs<'a> {
    base: Option<&'a Sha256Digest>,
    base_name: Option<&'a str>,
    platform: String,
    scheme: &'a InstallScheme,
    settings: &'a ContainerSettings,
    labels: &'a BTreeMap<String, String>,
    layers: Vec<(Sha256Digest, Sha256Digest, &'a str)>,
    created: &'a str,
}

/// Configuration and manifest, from the store if these layers were put together before.
pub(super) fn assemble(
    request: &ImageRequest<'_>,
    layers: Vec<Layer>,
    store: &Store,
) -> Result<BuiltImage, ImageError> {
    let base = request.base;
    let created = match request.created {
        Some(seconds) => jiff::Timestamp::from_second(seconds)
            .map_err(|error| ImageError::Project {
                problem: format!("SOURCE_DATE_EPOCH: {error}"),
            })?
            .to_string(),
        None => CREATED.to_owned(),
    };
    let inputs = Inputs {
        base: base.manifest.as_ref(),
        base_name: base.name.as_deref(),
        platform: base.platform.to_string(),
        scheme: &base.python.scheme,
        settings: &request.plan.settings,
        labels: request.labels,
        layers: layers
            .iter()
            .map(|layer| {
                (
                    layer.descriptor.digest,
                    layer.diff_id,
                    layer.created_by.as_str(),
                )
            })
            .collect(),
        created: &created,
    };
    let key = Recipe::new("image", RECIPE_VERSION, &inputs)?.key();
    let mut outputs = store.realisation(&key)?.unwrap_or_default().outputs;
    let (manifest, config) = match (outputs.get("manifest"), outputs.get("config")) {
        (Some(manifest), Some(config)) => (store.read(manifest)?, store.read(config)?),
        _ => {
            let config = config::config(
                base,
                &request.plan.settings,
                request.labels,
                &layers,
                &created,
            )?;
            let manifest = config::manifest(base, &config, &layers)?;
            // Objects before the realisation that names them, all in one batch.
            let mut batch = store.begin()?;
            outputs = layers
                .iter()
                .enumerate()
                .filter_map(|(index, layer)| Some((format!("layer-{index}"), layer.object()?)))
                .chain(
                    request
                        .wheels
                        .wheels
                        .iter()
                        .map(|w| (w.file_name.to_string(), w.object)),
                )
                .collect();
            outputs.insert("config".to_owned(), batch.put(&config)?.digest);
            outputs.insert("manifest".to_owned(), batch.put(&manifest)?.digest);
            let realisation = Realisation { outputs };
            batch.realise(&key, &realisation)?;
            batch.commit()?;
            outputs = realisation.outputs;
            (manifest, config)
        }
    };
    Ok(BuiltImage {
        manifest: FetchedManifest {
            descriptor: Descriptor::of(MediaType::new(MediaType::OCI_MANIFEST), &manifest),
            bytes: Bytes::from(manifest),
        },
        config: BytesBlob::new(MediaType::new(MediaType::OCI_CONFIG), config),
        base: base.clone(),
        published: request.published.cloned(),
        layers,
        objects: outputs.into_values().collect(),
    })
}
