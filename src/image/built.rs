//! Builds an image from its plan, and hands it to whoever pushes it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use forebay_store::{ObjectDigest, Realisation, Recipe, Sha256Digest, Store};
use serde::Serialize;
use tokio::runtime::Handle;

use super::base::BaseImage;
use super::bytecode::Bytecode;
use super::context::BuildContext;
use super::layer::{Layer, LayerSource, StoredLayer};
use super::plan::{ContainerSettings, ImagePlan, PlannedLine, Step};
use super::project::ProjectSource;
use super::{
    ImageError, config, copy_layer, credentials, project_layer, recompress, shelf, wheel_layers,
};
use crate::oci::{BlobSource, BytesBlob, Descriptor, MediaType, Repository};
use crate::progress::{Event, Phase, Progress, Unit};
use crate::registry::{FetchedManifest, ImageToPush, Registry};
use crate::wheels::{InstallScheme, WheelSet};

/// Changes whenever the same layers would give another configuration or manifest.
const RECIPE_VERSION: u32 = 1;
/// When images say that they were made, unless `SOURCE_DATE_EPOCH` says otherwise.
const CREATED: &str = "1980-01-01T00:00:01Z";

/// Everything that an image is made of.
#[derive(Debug, Clone, Copy)]
pub struct ImageRequest<'a> {
    /// What the Dockerfile asks for.
    pub plan: &'a ImagePlan,
    /// What it stands on.
    pub base: &'a BaseImage,
    /// The layers of the plan's [`Step::Engine`]s, in their order.
    pub container_layers: &'a [Vec<Layer>],
    /// Where those of them are that were made elsewhere.
    pub published: Option<&'a Repository>,
    /// The wheels of `plan.requirement_files` and `plan.requirement_lines`.
    pub wheels: &'a WheelSet,
    /// The project's files.
    pub context: BuildContext<'a>,
    /// The project.
    pub project: &'a ProjectSource<'a>,
    /// Whether layers are compressed anew instead of spliced.
    pub recompress: bool,
    /// Which compiler's `.pyc` files the image has, if it has any.
    pub bytecode: Option<Bytecode<'a>>,
    /// Labels beside the Dockerfile's. They become content: nothing that
    /// changes with every commit belongs here.
    pub labels: &'a BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970, if the user set it.
    pub created: Option<i64>,
}

/// An image whose every byte is known: manifest, configuration, and where each
/// layer comes from.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    manifest: FetchedManifest,
    config: BytesBlob,
    base: BaseImage,
    published: Option<Repository>,
    layers: Vec<Layer>,
    objects: Vec<ObjectDigest>,
}

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

/// Builds an image. What was built before is only looked up: an image whose
/// inputs did not change compresses and hashes nothing.
///
/// Layers stand in the Dockerfile's order; since each is made of its own inputs
/// alone, a change replaces the layer that it touches and no other.
///
/// # Errors
/// [`ImageError::Lines`] if the plan has lines that cannot be done, and whatever
/// wheels, project or store give.
pub fn build(
    request: &ImageRequest<'_>,
    store: &Store,
    progress: &dyn Progress,
) -> Result<BuiltImage, ImageError> {
    let errors: Vec<PlannedLine> = request.plan.errors().cloned().collect();
    if !errors.is_empty() {
        return Err(ImageError::Lines { lines: errors });
    }
    progress.report(Event::Started {
        phase: Phase::Image,
        total: None,
        unit: Unit::Items,
    });
    refuse_foreign_wheels(request)?;
    credentials::warn(request, progress)?;
    let layers = layers_of(request, &request.plan.steps, store, progress)?;
    let image = assemble(request, layers, store)?;
    shelf::shelve(store, &image, request.base.repository.as_ref())?;
    progress.report(Event::Finished {
        phase: Phase::Image,
        summary: match image.base.layers.len() {
            0 => format!("{} layers on scratch", image.layers.len()),
            base => format!("{} layers on the base's {base}", image.layers.len()),
        },
    });
    Ok(image)
}

/// The image up to (and without) the step at `index`, with the base's own settings: what
/// the lines of a [`Step::Engine`] run on.
///
/// # Errors
/// See [`build`].
pub fn build_below(
    request: &ImageRequest<'_>,
    index: usize,
    store: &Store,
    progress: &dyn Progress,
) -> Result<BuiltImage, ImageError> {
    let steps = request.plan.steps.get(..index).unwrap_or_default();
    let layers = layers_of(request, steps, store, progress)?;
    let plan = ImagePlan {
        settings: ContainerSettings::default(),
        ..request.plan.clone()
    };
    let below = ImageRequest {
        plan: &plan,
        labels: &BTreeMap::new(),
        created: None,
        ..*request
    };
    assemble(&below, layers, store)
}

fn layers_of(
    request: &ImageRequest<'_>,
    steps: &[Step],
    store: &Store,
    progress: &dyn Progress,
) -> Result<Vec<Layer>, ImageError> {
    let scheme = &request.base.python.scheme;
    let context = &request.context;
    let mut layers = Vec::new();
    let mut container_layers = request.container_layers.iter();
    for step in steps {
        match step {
            Step::Directory { text, path } => {
                layers.extend(copy_layer::directory(path, text, context, store)?);
            }
            Step::Copy { text, files } => {
                layers.push(copy_layer::build(files, text, context, store)?);
            }
            Step::Wheels => {
                let bytecode = request.bytecode.as_ref();
                let spliced =
                    wheel_layers::build(request.wheels, scheme, bytecode, store, progress)?;
                for layer in spliced {
                    layers.push(match request.recompress {
                        true => recompress::recompress(layer, store)?,
                        false => layer,
                    });
                }
            }
            Step::Project => layers.push(project_layer::build(
                request.project,
                context,
                scheme,
                request.bytecode.as_ref(),
                store,
                progress,
            )?),
            Step::Engine(_) => match container_layers.next() {
                Some(made) => layers.extend(made.iter().cloned()),
                None => {
                    return Err(ImageError::NoEngine {
                        lines: request.plan.engine_lines().cloned().collect(),
                    });
                }
            },
        }
    }
    Ok(layers)
}

/// Refuses wheels with machine code for glibc on a base that has musl.
fn refuse_foreign_wheels(request: &ImageRequest<'_>) -> Result<(), ImageError> {
    if !request.base.python.is_musl {
        return Ok(());
    }
    let foreign: Vec<&str> = request
        .wheels
        .wheels
        .iter()
        .filter(|wheel| !wheel.file_name.fits_musl())
        .map(|wheel| wheel.file_name.as_str())
        .collect();
    if foreign.is_empty() {
        return Ok(());
    }
    Err(ImageError::Base {
        name: match (&request.base.name, &request.base.repository) {
            (Some(name), _) => name.clone(),
            (None, Some(repository)) => repository.to_string(),
            (None, None) => "scratch".to_owned(),
        },
        problem: format!(
            "it is Alpine with musl as its C library, and there are only wheels for glibc of {}: \
             take a base of Debian's, for example python:{}.{}-slim",
            foreign.join(", "),
            request.base.python.major,
            request.base.python.minor,
        ),
    })
}

/// Configuration and manifest, from the store if these layers were put together before.
fn assemble(
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

impl BuiltImage {
    /// The digest that names the image.
    pub fn digest(&self) -> &Sha256Digest {
        &self.manifest.descriptor.digest
    }

    /// The manifest.
    pub fn manifest(&self) -> &FetchedManifest {
        &self.manifest
    }

    /// The configuration.
    pub fn config(&self) -> &BytesBlob {
        &self.config
    }

    /// What the image stands on.
    pub fn base(&self) -> &BaseImage {
        &self.base
    }

    /// Where layers are that were made elsewhere, beside the base's.
    pub fn published(&self) -> Option<&Repository> {
        self.published.as_ref()
    }

    /// The layers above the base's.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The diff ids of all layers, the base's first.
    pub fn diff_ids(&self) -> impl Iterator<Item = &Sha256Digest> {
        let own = self.layers.iter().map(|layer| &layer.diff_id);
        self.base.diff_ids.iter().chain(own)
    }

    /// The objects of the store that a push needs: what a root has to keep.
    pub fn objects(&self) -> &[ObjectDigest] {
        &self.objects
    }

    /// The image with the sources of all its blobs. `base` is the repository
    /// that the base's layers are read from, if the target neither has nor mounts them.
    /// `published` is the repository of layers that were made elsewhere.
    pub fn to_push(
        &self,
        store: &Arc<Store>,
        base: Option<Arc<dyn Registry>>,
        published: Option<Arc<dyn Registry>>,
    ) -> ImageToPush {
        let base_layers = self.base.layers.iter();
        let base_layers = base_layers.map(|descriptor| (descriptor.clone(), LayerSource::Base));
        let own_layers = self.layers.iter();
        let own_layers = own_layers.map(|layer| (layer.descriptor.clone(), layer.source));
        let layers: Vec<_> = base_layers.chain(own_layers).collect();
        let elsewhere = Elsewhere {
            base: RemoteLayers {
                repository: self.base.repository.clone(),
                registry: base,
            },
            published: RemoteLayers::of(published),
        };
        let (manifest, config) = (self.manifest.clone(), self.config.clone());
        to_push(manifest, config, &layers, store, &elsewhere)
    }
}

/// Layers that are in a repository and not in the store.
#[derive(Default)]
pub(super) struct RemoteLayers {
    repository: Option<Repository>,
    registry: Option<Arc<dyn Registry>>,
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
