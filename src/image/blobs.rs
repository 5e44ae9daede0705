//! Where the bytes of an image's blobs come from as it is pushed: the store, or the repositories
//! of images that it shares layers with.

use std::io::{self, Read};
use std::sync::Arc;

use forebay_store::Store;
use tokio::runtime::Handle;

use super::layer::{LayerSource, StoredLayer};
use crate::oci::{BlobSource, BytesBlob, Descriptor, Repository};
use crate::registry::{FetchedManifest, ImageToPush, Registry};

/// Layers that are in a repository and not in the store.
#[derive(Default)]
pub(super) struct RemoteLayers {
    pub(super) repository: Option<Repository>,
    pub(super) registry: Option<Arc<dyn Registry>>,
}

impl RemoteLayers {
    /// Those of an opened repository.
    pub(super) fn of(registry: Option<Arc<dyn Registry>>) -> Self {
        Self {
            repository: registry.as_ref().map(|it| it.repository().clone()),
            registry,
        }
    }
}

/// Where the layers are that the store has not.
#[derive(Default)]
pub(super) struct Elsewhere {
    /// The base's.
    pub(super) base: RemoteLayers,
    /// Those of lines that another machine has run.
    pub(super) published: RemoteLayers,
}

/// An image with the sources of all its blobs.
pub(super) fn to_push(
    manifest: FetchedManifest,
    config: BytesBlob,
    layers: &[(Descriptor, LayerSource)],
    store: &Arc<Store>,
    elsewhere: &Elsewhere,
) -> ImageToPush {
    let runtime = Handle::try_current().ok();
    let remote = |descriptor: &Descriptor, layers: &RemoteLayers| {
        Arc::new(BaseLayer {
            descriptor: descriptor.clone(),
            repository: layers.repository.clone(),
            registry: layers.registry.clone(),
            runtime: runtime.clone(),
        }) as Arc<dyn BlobSource>
    };
    let layers = layers.iter().map(|(descriptor, source)| match source {
        LayerSource::Base => remote(descriptor, &elsewhere.base),
        LayerSource::Published => remote(descriptor, &elsewhere.published),
        LayerSource::Object(_) | LayerSource::Spliced(_) => Arc::new(StoredLayer {
            store: Arc::clone(store),
            descriptor: descriptor.clone(),
            source: *source,
        }),
    });
    let config: Arc<dyn BlobSource> = Arc::new(config);
    ImageToPush {
        manifest,
        blobs: layers.chain([config]).collect(),
        parts: Vec::new(),
        mount_candidates: Vec::new(),
    }
}

/// A base's layer, read from its repository only when its bytes are asked for.
struct BaseLayer {
    descriptor: Descriptor,
    repository: Option<Repository>,
    registry: Option<Arc<dyn Registry>>,
    runtime: Option<Handle>,
}

impl BlobSource for BaseLayer {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn origin(&self) -> Option<&Repository> {
        self.repository.as_ref()
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let registry = self.registry.clone().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "the base's repository is not known, so its layers cannot be read",
            )
        })?;
        Ok(Box::new(BaseLayerReader {
            descriptor: self.descriptor.clone(),
            registry,
            runtime: self.runtime.clone(),
            opened: None,
        }))
    }
}

/// Asks the base's repository when the first byte is read: readers are used off
/// the async threads, where waiting for an answer blocks nobody.
struct BaseLayerReader {
    descriptor: Descriptor,
    registry: Arc<dyn Registry>,
    runtime: Option<Handle>,
    opened: Option<Box<dyn Read + Send>>,
}

impl Read for BaseLayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(opened) = &mut self.opened {
            return opened.read(buffer);
        }
        let runtime = match &self.runtime {
            Some(runtime) => runtime.clone(),
            None => Handle::try_current().map_err(io::Error::other)?,
        };
        let opened = runtime
            .block_on(self.registry.blob(&self.descriptor))
            .map_err(io::Error::other)?;
        self.opened.insert(opened).read(buffer)
    }
}
