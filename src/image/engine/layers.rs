//! The layers of lines that run in a container: made once for the same inputs.

use std::fs;
use std::io;
use std::path::Path;

use forebay_store::{Realisation, Recipe, RecipeKey, Sha256Digest, Store, TreeEntryKind};
use serde::Serialize;
use serde_json::Value;

use super::{Engine, Job};
use crate::image::layer::{self, Layer};
use crate::image::layer_check::check_layer;
use crate::image::plan::EngineStep;
use crate::image::saved::{DockerArchive, Limits, SavedImageError};
use crate::image::{BuildContext, BuiltImage, ImageError, file_layer, json};
use crate::progress::{Event, Phase, Progress, Unit};
use crate::registry::{ImageToPush, write_archive};

/// Changes whenever the same inputs are to be given to engines in another way.
const RECIPE_VERSION: u32 = 1;
/// What programs in containers take for the time, and what files are dated that say none:
/// 1980-01-01T00:00:01Z. The user's own date would run the engine anew for every commit.
const EPOCH: i64 = 315_532_801;
/// The output of the realisation that describes the layers.
const LAYERS: &str = "layers";

/// Lines to be run in a container.
#[derive(Debug, Clone, Copy)]
pub struct ContainerRequest<'a> {
    /// The lines.
    pub step: &'a EngineStep,
    /// What they run on.
    pub below: &'a BuiltImage,
    /// The project's files.
    pub context: BuildContext<'a>,
    /// The user's own arguments of the engine's `build`.
    pub arguments: &'a [String],
}

/// Everything that decides what the lines leave in the image, as far as it can be known.
#[derive(Serialize)]
struct Inputs<'a> {
    platform: String,
    /// The layers below.
    below: Vec<&'a Sha256Digest>,
    /// What the base says about containers.
    settings: Vec<Option<&'a Value>>,
    dockerfile: String,
    files: Vec<(&'a str, String)>,
    arguments: &'a [String],
}

/// Names what the lines come to: the same inputs run no engine again.
///
/// # Errors
/// A file that is gone since the scan.
pub fn step_key(request: &ContainerRequest<'_>) -> Result<RecipeKey, ImageError> {
    let ContainerRequest { step, below, .. } = request;
    let container = below.base().config.get("config");
    let setting = |name| container.and_then(|container| container.get(name));
    let inputs = Inputs {
        platform: below.base().platform.to_string(),
        below: below.diff_ids().collect(),
        settings: ["Env", "User", "WorkingDir", "Shell"].map(setting).to_vec(),
        dockerfile: step.dockerfile("below", EPOCH),
        files: step
            .files
            .iter()
            .map(|path| Ok((path.as_str(), described(path, &request.context)?)))
            .collect::<Result<_, ImageError>>()?,
        arguments: request.arguments,
    };
    Ok(Recipe::new("container-layers", RECIPE_VERSION, &inputs)?.key())
}

/// A file's kind and content in a word.
fn described(path: &str, context: &BuildContext<'_>) -> Result<String, ImageError> {
    match context.tree.get(path).map(|entry| &entry.kind) {
        Some(TreeEntryKind::File {
            digest, executable, ..
        }) => Ok(format!(
            "{} {digest}",
            if *executable { "program" } else { "file" }
        )),
        Some(TreeEntryKind::Symlink { target }) => Ok(format!("link {target}")),
        _ => Err(ImageError::NotInContext {
            path: path.to_owned(),
        }),
    }
}

/// The layers, if the same lines ran before.
///
/// # Errors
/// The store cannot be read.
pub fn known_layers(store: &Store, key: &RecipeKey) -> Result<Option<Vec<Layer>>, ImageError> {
    let Some(realisation) = store.realisation(key)? else {
        return Ok(None);
    };
    match realisation.outputs.get(LAYERS) {
        Some(layers) => Ok(serde_json::from_slice(&store.read(layers)?).ok()),
        None => Ok(None),
    }
}

/// Runs the lines and keeps their layers under `key`. `below` is the image that they run on,
/// with the sources of its blobs. It blocks: call it off the async threads.
///
/// # Errors
/// The engine fails, or gives what cannot be a layer.
pub fn make_layers(
    request: &ContainerRequest<'_>,
    key: &RecipeKey,
    below: &ImageToPush,
    engine: &Engine,
    fresh: bool,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Vec<Layer>, ImageError> {
    progress.report(Event::Started {
        phase: Phase::Engine,
        total: None,
        unit: Unit::Items,
    });
    let scratch =
        tempfile::tempdir().map_err(ImageError::io("cannot make a folder for the engine"))?;
    let path = |name: &str| scratch.path().join(name);
    // Names of this run alone, so that two runs do not take each other's images away.
    let nonce = scratch
        .path()
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let nonce: String = nonce.chars().filter(char::is_ascii_alphanumeric).collect();
    let name = |what: &str| format!("localhost/forebay-{what}:{}-{nonce}", key_start(key));
    let (below_name, made_name) = (name("below"), name("made"));
    let below_count = request.below.diff_ids().count();
    let (below_file, base) = if below_count == 0 {
        (None, "scratch")
    } else {
        let file = path("below.tar");
        write_archive(below, std::slice::from_ref(&below_name), &file)?;
        (Some(file), below_name.as_str())
    };
    let (context, dockerfile, made) = (path("context"), path("Dockerfile"), path("made.tar"));
    // Nothing else can get into the image.
    let files = request.step.files.iter().map(String::as_str);
    request.context.copy(files, &context)?;
    fs::write(&dockerfile, request.step.dockerfile(base, EPOCH))
        .map_err(ImageError::io("cannot write a Dockerfile"))?;
    engine.build(
        &Job {
            below: below_file.as_deref(),
            below_name: &below_name,
            dockerfile: &dockerfile,
            context: &context,
            made: &made,
            made_name: &made_name,
            platform: request.below.base().platform,
            epoch: EPOCH,
            arguments: request.arguments,
            fresh,
        },
        progress,
    )?;
    let layers = take(request, &made, below_count, key, store)?;
    progress.report(Event::Finished {
        phase: Phase::Engine,
        summary: format!(
            "{} {} made {} of {}",
            engine.program.as_str(),
            engine.version,
            crate::image::count(layers.len(), "layer"),
            crate::image::count(request.step.lines.len(), "line"),
        ),
    });
    Ok(layers)
}

fn key_start(key: &RecipeKey) -> String {
    key.to_string()
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect()
}

/// Checks what the engine gave and keeps the layers above the `below_count` that it got.
fn take(
    request: &ContainerRequest<'_>,
    made: &Path,
    below_count: usize,
    key: &RecipeKey,
    store: &Store,
) -> Result<Vec<Layer>, ImageError> {
    let refused = |error: SavedImageError| {
        let action = "cannot use the image that the engine made";
        ImageError::io(action)(io::Error::other(error))
    };
    let archive = DockerArchive::open(made, &Limits::default()).map_err(refused)?;
    if !archive
        .diff_ids()
        .take(below_count)
        .eq(request.below.diff_ids())
    {
        return Err(ImageError::Engine {
            command: "the engine".to_owned(),
            output: "its image does not stand on the one that it was given".to_owned(),
        });
    }
    let mut batch = store.begin()?;
    let mut kept = Vec::new();
    for archive in archive.layers(below_count) {
        let entries = archive
            .read(|reader| check_layer(reader))
            .map_err(refused)?;
        // A line that changes nothing is no layer.
        if entries > 0 {
            kept.push(file_layer::compress(&mut batch, |out| {
                archive.copy(out).map_err(refused)
            })?);
        }
    }
    let layers = kept
        .iter()
        .map(|(info, diff_id)| layer::object_layer(info, *diff_id, ""))
        .collect();
    let layers = engine_layers(request.step, layers);
    // Objects before the realisation that names them, all in one batch.
    let mut realisation = Realisation::default();
    let description = batch.put(&json(&layers)?)?;
    realisation
        .outputs
        .insert(LAYERS.to_owned(), description.digest);
    for (index, (info, _)) in kept.iter().enumerate() {
        realisation
            .outputs
            .insert(format!("layer-{index}"), info.digest);
    }
    batch.realise(key, &realisation)?;
    batch.commit()?;
    Ok(layers)
}

/// The layers that `step` came to, named by its lines: they may be fewer or more, and are
/// named alike wherever they were made.
pub fn engine_layers(step: &EngineStep, layers: Vec<Layer>) -> Vec<Layer> {
    let texts: Vec<&str> = step.lines.iter().map(|line| line.text.as_str()).collect();
    let all = texts.join("; ");
    let is_one_each = texts.len() == layers.len();
    layers
        .into_iter()
        .enumerate()
        .map(|(index, layer)| Layer {
            created_by: match texts.get(index) {
                Some(text) if is_one_each => (*text).to_owned(),
                _ => all.clone(),
            },
            ..layer
        })
        .collect()
}
