//! The image's configuration and manifest (OCI image specification), with
//! sorted keys and nothing of the clock.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::ImageError;
use super::base::BaseImage;
use super::layer::Layer;
use super::plan::ContainerSettings;
use crate::oci::{Descriptor, ImageManifest, MediaType};

/// Members of the configuration that come from the base as they are.
const FROM_BASE: [&str; 3] = ["os.features", "os.version", "variant"];

fn object(value: Option<&Value>) -> Map<String, Value> {
    value
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

fn set_keys<'a>(
    container: &mut Map<String, Value>,
    key: &str,
    names: impl Iterator<Item = &'a String>,
) {
    let mut set = object(container.get(key));
    set.extend(names.map(|name| (name.clone(), json!({}))));
    if !set.is_empty() {
        container.insert(key.to_owned(), Value::Object(set));
    }
}

/// The base's container settings with the Dockerfile's over them.
fn container(
    base: &BaseImage,
    settings: &ContainerSettings,
    labels: &BTreeMap<String, String>,
) -> Map<String, Value> {
    let mut container = object(base.config.get("config"));
    let mut environment: Vec<(String, String)> = container
        .get("Env")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|variable| variable.as_str()?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (name, value) in &settings.environment {
        match environment
            .iter_mut()
            .find(|(existing, _)| existing == name)
        {
            Some((_, existing)) => existing.clone_from(value),
            None => environment.push((name.clone(), value.clone())),
        }
    }
    if !environment.is_empty() {
        let variables = environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        container.insert("Env".to_owned(), Value::from_iter(variables));
    }
    let mut all_labels = object(container.get("Labels"));
    for (name, value) in settings.labels.iter().chain(labels) {
        all_labels.insert(name.clone(), Value::from(value.as_str()));
    }
    if !all_labels.is_empty() {
        container.insert("Labels".to_owned(), Value::Object(all_labels));
    }
    set_keys(
        &mut container,
        "ExposedPorts",
        settings.exposed_ports.iter(),
    );
    set_keys(&mut container, "Volumes", settings.volumes.iter());
    let texts = [
        ("User", &settings.user),
        ("WorkingDir", &settings.working_directory),
        ("StopSignal", &settings.stop_signal),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            container.insert(key.to_owned(), Value::from(value.as_str()));
        }
    }
    for (key, value) in [
        ("Cmd", &settings.command),
        ("Entrypoint", &settings.entrypoint),
    ] {
        if let Some(words) = value {
            container.insert(key.to_owned(), Value::from_iter(words.iter().cloned()));
        }
    }
    container.retain(|_, value| !value.is_null());
    container
}

/// The configuration's bytes. `created` is an RFC 3339 date and time.
pub(super) fn config(
    base: &BaseImage,
    settings: &ContainerSettings,
    labels: &BTreeMap<String, String>,
    layers: &[Layer],
    created: &str,
) -> Result<Vec<u8>, ImageError> {
    let mut config = Map::new();
    for key in FROM_BASE {
        if let Some(value) = base.config.get(key) {
            config.insert(key.to_owned(), value.clone());
        }
    }
    let base_history = base.config.get("history").and_then(Value::as_array);
    let mut history = base_history.cloned().unwrap_or_default();
    let base_layers = history
        .iter()
        .filter(|entry| entry.get("empty_layer").and_then(Value::as_bool) != Some(true))
        .count();
    if base_layers != base.layers.len() {
        // Readers that count want as many entries as layers.
        history = base
            .layers
            .iter()
            .map(|layer| json!({"created_by": format!("base layer {}", layer.digest)}))
            .collect();
    }
    history.extend(
        layers
            .iter()
            .map(|layer| json!({"created": created, "created_by": layer.created_by})),
    );
    let diff_ids = base
        .diff_ids
        .iter()
        .chain(layers.iter().map(|layer| &layer.diff_id));
    let rootfs = json!({
        "type": "layers",
        "diff_ids": diff_ids.map(ToString::to_string).collect::<Vec<_>>(),
    });
    let container = Value::Object(container(base, settings, labels));
    for (key, value) in [
        ("architecture", Value::from(base.platform.architecture())),
        ("os", Value::from(base.platform.os())),
        ("created", Value::from(created)),
        ("config", container),
        ("rootfs", rootfs),
        ("history", Value::Array(history)),
    ] {
        config.insert(key.to_owned(), value);
    }
    let mut config = Value::Object(config);
    // Sorted whatever features of the JSON crate other crates turn on.
    config.sort_all_objects();
    super::json(&config)
}

/// The manifest's bytes.
pub(super) fn manifest(
    base: &BaseImage,
    config: &[u8],
    layers: &[Layer],
) -> Result<Vec<u8>, ImageError> {
    let mut annotations = BTreeMap::new();
    if let (Some(name), Some(digest)) = (&base.name, &base.manifest) {
        // OCI image specification, "Pre-Defined Annotation Keys".
        let prefix = "org.opencontainers.image.base";
        annotations.insert(format!("{prefix}.name"), name.clone());
        annotations.insert(format!("{prefix}.digest"), digest.to_string());
    }
    let own = layers.iter().map(|layer| layer.descriptor.clone());
    super::json(&ImageManifest {
        schema_version: 2,
        media_type: Some(MediaType::new(MediaType::OCI_MANIFEST)),
        config: Descriptor::of(MediaType::new(MediaType::OCI_CONFIG), config),
        layers: base.layers.iter().cloned().chain(own).collect(),
        annotations,
    })
}
