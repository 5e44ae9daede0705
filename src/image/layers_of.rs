//! What an image in a registry says of its layers: manifest and configuration, no layer is read.

use std::io::Read as _;

use serde::Deserialize;

use crate::oci::{ImageManifest, Sha256Digest};
use crate::registry::{ManifestName, Registry, RegistryError};

/// Bytes that a configuration may have.
const MAX_CONFIG: u64 = 8 << 20;

/// A layer, as the image's manifest and history describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerOfImage {
    /// The digest of its bytes as they are sent.
    pub digest: Sha256Digest,
    /// How many those are.
    pub size: u64,
    /// What made it, in the words of whoever did; empty if the history does not tell.
    pub created_by: String,
    /// Whether its date is the image's own. Those of a base have their own dates.
    pub has_date_of_image: bool,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    history: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    created_by: String,
    #[serde(default)]
    empty_layer: bool,
}

/// The layers of an image, the lowest first (two requests). `None` if the registry does not have
/// it; `Some(None)` if it is not an image of one platform, or one that cannot be understood.
///
/// # Errors
/// The registry's.
pub async fn layers_of_image(
    registry: &dyn Registry,
    digest: Sha256Digest,
) -> Result<Option<Option<Vec<LayerOfImage>>>, RegistryError> {
    let Some(manifest) = registry.manifest(&ManifestName::Digest(digest)).await? else {
        return Ok(None);
    };
    let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&manifest.bytes) else {
        return Ok(Some(None));
    };
    if manifest.config.size > MAX_CONFIG {
        return Ok(Some(None));
    }
    let mut blob = registry.blob(&manifest.config).await?;
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = read.await.map_err(std::io::Error::other).flatten();
    let bytes = bytes.map_err(|source| RegistryError::Io {
        action: format!("cannot read the configuration of the image {digest}"),
        source,
    })?;
    Ok(Some(Some(described(&manifest, &bytes))))
}

fn described(manifest: &ImageManifest, config: &[u8]) -> Vec<LayerOfImage> {
    let config = serde_json::from_slice(config).unwrap_or(Config {
        created: None,
        history: Vec::new(),
    });
    let history = config.history.into_iter();
    let mut history: Vec<_> = history.filter(|entry| !entry.empty_layer).collect();
    if history.len() != manifest.layers.len() {
        history.clear();
    }
    let mut history = history.into_iter();
    let layers = manifest.layers.iter().map(|layer| {
        let entry = history.next();
        LayerOfImage {
            digest: layer.digest,
            size: layer.size,
            has_date_of_image: (entry.as_ref())
                .is_some_and(|entry| entry.created.is_some() && entry.created == config.created),
            created_by: entry.map(|entry| entry.created_by).unwrap_or_default(),
        }
    });
    layers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, MediaType};

    #[test]
    fn a_layer_has_the_words_of_its_line_or_none() {
        let layer = |bytes: &[u8]| Descriptor::of(MediaType::new(MediaType::OCI_LAYER_GZIP), bytes);
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: None,
            config: Descriptor::of(MediaType::new(MediaType::OCI_CONFIG), b"{}"),
            layers: vec![layer(b"base"), layer(b"own")],
            annotations: std::collections::BTreeMap::new(),
        };
        let config = br#"{"created": "1980", "history": [
            {"created": "1970", "created_by": "ADD"}, {"created_by": "ENV", "empty_layer": true},
            {"created": "1980", "created_by": "COPY"}]}"#;
        let words = |config: &[u8]| -> Vec<_> {
            let layers = described(&manifest, config);
            let words = layers.into_iter();
            words
                .map(|layer| (layer.created_by, layer.has_date_of_image))
                .collect()
        };
        let told = [("ADD".to_owned(), false), ("COPY".to_owned(), true)];
        assert_eq!(words(config), told);
        // A history of another length would name the wrong layers.
        for config in [&br#"{"history": [{"created_by": "ADD"}]}"#[..], b"not JSON"] {
            assert_eq!(
                words(config),
                [(String::new(), false), (String::new(), false)]
            );
        }
    }
}
