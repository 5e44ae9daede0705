//! Builds an image from its plan, and hands it to whoever pushes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_store::{ObjectDigest, Sha256Digest, Store};

use super::assemble::assemble;
use super::base::BaseImage;
use super::blobs::{Elsewhere, RemoteLayers, to_push};
use super::bytecode::Bytecode;
use super::context::BuildContext;
use super::layer::{Layer, LayerSource};
use super::plan::{ContainerSettings, ImagePlan, PlannedLine, Step};
use super::project::ProjectSource;
use super::{ImageError, copy_layer, credentials, project_layer, recompress, shelf, wheel_layers};
use crate::oci::{BytesBlob, Repository};
use crate::progress::{Event, Phase, Progress, Unit};
use crate::project::CompressionSetting;
use crate::registry::{FetchedManifest, ImageToPush, Registry};
use crate::wheels::{LockedWheel, WheelSet};

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
    /// The project's wheel, if its own build has made it.
    pub project_wheel: Option<&'a LockedWheel>,
    /// How layers are compressed.
    pub compression: CompressionSetting,
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
    pub(super) manifest: FetchedManifest,
    pub(super) config: BytesBlob,
    pub(super) base: BaseImage,
    pub(super) published: Option<Repository>,
    pub(super) layers: Vec<Layer>,
    pub(super) objects: Vec<ObjectDigest>,
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
    let plan = ImagePlan {
        settings: ContainerSettings::default(),
        ..request.plan.clone()
    };
    // Engines older than Docker 23 read no zstd.
    let compression = match request.compression {
        CompressionSetting::Zstd => CompressionSetting::Splice,
        other => other,
    };
    let request = &ImageRequest {
        compression,
        ..*request
    };
    let layers = layers_of(request, steps, store, progress)?;
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
                layers.extend(spliced);
            }
            Step::Project => {
                let bytecode = request.bytecode.as_ref();
                layers.push(match request.project_wheel {
                    None => {
                        let source = request.project;
                        project_layer::build(source, context, scheme, bytecode, store, progress)?
                    }
                    Some(wheel) => {
                        let name = request.project.name;
                        wheel_layers::of_project(wheel, name, scheme, bytecode, store, progress)?
                    }
                });
            }
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
    let layers = layers.into_iter();
    layers
        .map(|layer| recompress::recompress(layer, request.compression, store))
        .collect()
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
