//! What a push would do, found out by questions alone.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::proven::{Previous, proven_by, proven_with};
use super::push::{PARALLEL_BLOBS, are_on_one_registry, layers};
use super::{ImageToPush, ManifestName, Registry, RegistryError};
use crate::oci::Descriptor;

/// What a push would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushForecast {
    /// The blobs whose bytes would be sent, as the image lists them.
    pub sent: Vec<Descriptor>,
    /// How many of those are layers; the configuration is none.
    pub layers_sent: usize,
    /// How many layers the registry would take from another of its repositories,
    /// if it still has them there and allows it.
    pub layers_mounted: usize,
    /// How many layers are there.
    pub layers_present: usize,
}

impl PushForecast {
    /// How many bytes would be sent.
    pub fn bytes(&self) -> u64 {
        self.sent.iter().map(|blob| blob.size).sum()
    }
}

/// Foretells [`push`](super::push), or [`push_onto`](super::push_onto) what was fetched. An image
/// that is there costs one request; otherwise each blob that `previous` does not prove costs one.
///
/// # Errors
/// See [`RegistryError`].
pub async fn forecast_push(
    registry: &dyn Registry,
    image: &ImageToPush,
    previous: Option<Previous<'_>>,
) -> Result<PushForecast, RegistryError> {
    let layers = layers(image);
    let digest = image.manifest.descriptor.digest;
    let present = PushForecast {
        layers_present: layers.len(),
        ..PushForecast::default()
    };
    let name = ManifestName::Digest(digest);
    if registry.manifest_descriptor(&name).await?.is_some() {
        return Ok(present);
    }
    let mut seen = match previous {
        Some(Previous::Named(previous)) if *previous != digest => {
            proven_by(registry, previous).await?
        }
        Some(Previous::Fetched(previous)) => proven_with(registry, previous).await?,
        _ => BTreeSet::new(),
    };
    let own = registry.repository();
    let questions = image
        .blobs
        .iter()
        .filter(|blob| seen.insert(blob.descriptor().digest));
    let questions = questions.map(|blob| async move {
        let descriptor = blob.descriptor().clone();
        let present = registry.has_blob(&descriptor.digest).await?;
        let mut elsewhere = blob.origin().into_iter().chain(&image.mount_candidates);
        let mounted =
            !present && elsewhere.any(|place| place != own && are_on_one_registry(place, own));
        Ok::<_, RegistryError>((descriptor, present, mounted))
    });
    // Boxed, because a stream of borrowing futures cannot be moved between threads.
    let questions: Vec<_> = questions.map(Box::pin).collect();
    let answers: Vec<_> = stream::iter(questions)
        .buffered(PARALLEL_BLOBS)
        .try_collect()
        .await?;
    let mut forecast = present;
    for (descriptor, present, mounted) in answers {
        let is_layer = layers.contains(&descriptor.digest);
        if present {
            continue;
        }
        if is_layer {
            forecast.layers_present -= 1;
        }
        if mounted {
            forecast.layers_mounted += usize::from(is_layer);
        } else {
            forecast.layers_sent += usize::from(is_layer);
            forecast.sent.push(descriptor);
        }
    }
    Ok(forecast)
}
