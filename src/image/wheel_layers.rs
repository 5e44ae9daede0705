//! Deals wheels out to layers and splices those.

use std::collections::BTreeMap;
use std::sync::Mutex;

use forebay_store::{ObjectDigest, ObjectFile, Realisation, Recipe, RecipeKey, Store};
use serde::Serialize;

use super::bytecode::Bytecode;
use super::layer::{self, Layer, LayerSource};
use super::recompress::recompress;
use super::splice::{self, Piece, Spliced};
use super::tar::{FileTree, Node};
use super::{ImageError, MAX_WHEEL_LAYERS};
use crate::oci::{Descriptor, MediaType};
use crate::progress::{Event, Phase, Progress};
use crate::project::CompressionSetting;
use crate::wheels::{
    Archive, Content, InstallScheme, Installation, LockedWheel, WheelSet, check_conflicts,
};

/// Wheels of this size (bytes) and above get a layer of their own.
const LARGE: u64 = 4 << 20;
/// The others share this many layers, by the hash of their names: so a new
/// package changes one of them, not all.
const BUCKETS: u8 = 8;

/// The output of a set's realisation that describes its layers.
const LAYERS: &str = "layers";

/// Changes whenever what is kept of a whole set is another.
const SET_VERSION: u32 = 2;
/// Changes whenever the same wheels would give other bytes.
const RECIPE_VERSION: u32 = 2;

#[derive(Serialize)]
struct Inputs<'a> {
    scheme: &'a InstallScheme,
    wheels: Vec<(&'a str, String)>,
    bytecode: Option<String>,
}

/// Which wheels share a layer: large ones alone, the rest by bucket. The order is fixed.
fn deal(set: &WheelSet) -> Vec<Vec<&LockedWheel>> {
    let mut large: Vec<&LockedWheel> = set.wheels.iter().filter(|w| w.size >= LARGE).collect();
    // More large wheels than an image should have layers: the smaller of them share.
    large.sort_by_key(|wheel| (std::cmp::Reverse(wheel.size), &wheel.file_name));
    large.truncate(MAX_WHEEL_LAYERS - usize::from(BUCKETS));
    large.sort_by_key(|wheel| &wheel.file_name);
    let mut buckets: BTreeMap<u8, Vec<&LockedWheel>> = BTreeMap::new();
    for wheel in &set.wheels {
        if !large.contains(&wheel) {
            let name = wheel.file_name.distribution();
            let hash = forebay_store::ObjectDigest::of(name.as_str().as_bytes());
            let bucket = hash.as_bytes().first().map_or(0, |byte| byte % BUCKETS);
            buckets.entry(bucket).or_default().push(wheel);
        }
    }
    let alone = large.into_iter().map(|wheel| vec![wheel]);
    alone.chain(buckets.into_values()).collect()
}

/// The layers of `set`, installed by `scheme`.
///
/// A layer that was made before is only looked up. The others are made on
/// all processors; each wheel is inflated once, to prove what RECORD says.
///
/// # Errors
/// A wheel that is refused, two wheels in conflict, or the store.
pub(super) fn build(
    set: &WheelSet,
    scheme: &InstallScheme,
    bytecode: Option<&Bytecode<'_>>,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Vec<Layer>, ImageError> {
    if set.wheels.is_empty() {
        return Ok(Vec::new());
    }
    let compiler = bytecode.map(|bytecode| bytecode.fingerprint);
    let whole = (set.digest(), scheme, compiler);
    let whole = Recipe::new("wheel-layers", SET_VERSION, &whole)?.key();
    if let Some(realisation) = store.realisation(&whole)?
        && let Some(layers) = realisation.outputs.get(LAYERS)
        && let Ok(layers) = serde_json::from_slice(&store.read(layers)?)
    {
        return Ok(layers);
    }
    let (layers, keys) = build_groups(set, scheme, bytecode, store, progress)?;
    let mut batch = store.begin()?;
    let mut realisation = Realisation::default();
    let description = batch.put(&super::json(&layers)?)?;
    let outputs = &mut realisation.outputs;
    outputs.insert(LAYERS.to_owned(), description.digest);
    // All that the layers' bytes are made of: wheels, compiled modules, recipes.
    for (index, key) in keys.iter().enumerate() {
        for (name, object) in store.realisation(key)?.unwrap_or_default().outputs {
            match name.as_str() {
                layer::LAYER => None,
                "recipe" => outputs.insert(format!("recipe-{index}"), object),
                _ => outputs.insert(name, object),
            };
        }
    }
    batch.realise(&whole, &realisation)?;
    batch.commit()?;
    Ok(layers)
}

/// The layer of the project's own wheel. It is compressed here: the streams in a wheel that was
/// just built are those of this machine's zlib.
///
/// # Errors
/// See [`build`].
pub(super) fn of_project(
    wheel: &LockedWheel,
    project: &str,
    scheme: &InstallScheme,
    bytecode: Option<&Bytecode<'_>>,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Layer, ImageError> {
    let set = WheelSet::new(vec![wheel.clone()])?;
    let layers = build(&set, scheme, bytecode, store, progress)?;
    let Some(layer) = layers.into_iter().next() else {
        return Err(ImageError::Splice {
            wheels: vec![wheel.file_name.to_string()],
            source: std::io::Error::other("a layer was not made"),
        });
    };
    let layer = Layer {
        created_by: format!("pip install {project}"),
        ..layer
    };
    recompress(layer, CompressionSetting::Gzip, store)
}

fn build_groups(
    set: &WheelSet,
    scheme: &InstallScheme,
    bytecode: Option<&Bytecode<'_>>,
    store: &Store,
    progress: &dyn Progress,
) -> Result<(Vec<Layer>, Vec<RecipeKey>), ImageError> {
    let groups = deal(set);
    let mut keys = Vec::new();
    let mut layers: Vec<Option<Layer>> = Vec::new();
    for group in &groups {
        let inputs = Inputs {
            scheme,
            wheels: group
                .iter()
                .map(|wheel| (wheel.file_name.as_str(), wheel.object.to_string()))
                .collect(),
            bytecode: bytecode.map(|bytecode| bytecode.fingerprint.to_string()),
        };
        let key = Recipe::new("wheel-layer", RECIPE_VERSION, &inputs)?.key();
        layers.push(layer::realised(store, &key)?);
        keys.push(key);
    }
    let missing: Vec<usize> = (0..groups.len())
        .filter(|&index| layers.get(index).is_some_and(Option::is_none))
        .collect();

    set.bring(store)?;
    // Reading names alone shows conflicts, also between a new layer and one that is there.
    let plans = set
        .wheels
        .iter()
        .map(|wheel| wheel.plan_installation(store, scheme))
        .collect::<Result<Vec<_>, _>>()?;
    check_conflicts(plans.iter().map(|(_, installation)| installation))?;
    let plans: BTreeMap<&LockedWheel, &(Archive<ObjectFile>, Installation)> =
        set.wheels.iter().zip(&plans).collect();
    let compiled = match bytecode {
        None => BTreeMap::new(),
        Some(bytecode) => {
            let wheels: Vec<_> = missing
                .iter()
                .filter_map(|&index| groups.get(index))
                .flatten()
                .filter_map(|wheel| {
                    let (archive, installation) = plans.get(wheel)?;
                    Some((*wheel, archive, installation))
                })
                .collect();
            bytecode.of_wheels(&wheels, scheme, store)?
        }
    };

    let queue = Mutex::new(missing.into_iter());
    let made = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers.min(groups.len()) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.next());
                    let Some(index) = next else { break };
                    let group = groups.get(index).map(Vec::as_slice).unwrap_or_default();
                    let result = splice_group(group, &plans, &compiled, store);
                    progress.report(Event::Advanced {
                        phase: Phase::Image,
                        amount: 1,
                    });
                    if let Ok(mut made) = made.lock() {
                        made.push((index, result));
                    }
                }
            });
        }
    });

    let made = made.into_inner().unwrap_or_default();
    if !made.is_empty() {
        // Recipes before the realisations that name them, all in one batch.
        let mut batch = store.begin()?;
        for (index, result) in made {
            let spliced = result?;
            let group = groups.get(index).map(Vec::as_slice).unwrap_or_default();
            let recipe = batch.put(&spliced.recipe)?;
            let names: Vec<&str> = group.iter().map(|w| w.file_name.as_str()).collect();
            let layer = Layer {
                descriptor: Descriptor {
                    media_type: MediaType::new(MediaType::OCI_LAYER_GZIP),
                    digest: spliced.digest,
                    size: spliced.size,
                    annotations: BTreeMap::new(),
                },
                diff_id: spliced.diff_id,
                source: LayerSource::Spliced(recipe.digest),
                created_by: format!("pip install {}", names.join(" ")),
            };
            if let (Some(key), Some(slot)) = (keys.get(index), layers.get_mut(index)) {
                let wheels = group.iter().map(|w| (w.file_name.to_string(), w.object));
                let bytecode = group.iter().filter_map(|w| {
                    let object = compiled.get(&w.object)?;
                    Some((format!("bytecode of {}", w.file_name), *object))
                });
                let outputs = wheels
                    .chain(bytecode)
                    .chain([("recipe".to_owned(), recipe.digest)]);
                layer::realise(&mut batch, key, &layer, outputs)?;
                *slot = Some(layer);
            }
        }
        batch.commit()?;
    }
    // An image that lacks a layer must not come to be, whatever happened to a worker.
    let layers = layers.into_iter().collect::<Option<Vec<Layer>>>();
    layers
        .map(|layers| (layers, keys))
        .ok_or_else(|| ImageError::Splice {
            wheels: set.wheels.iter().map(|w| w.file_name.to_string()).collect(),
            source: std::io::Error::other("a layer was not made"),
        })
}

/// The files of a group of wheels as one tree; identical files of two wheels are one.
fn splice_group(
    group: &[&LockedWheel],
    plans: &BTreeMap<&LockedWheel, &(Archive<ObjectFile>, Installation)>,
    compiled: &BTreeMap<ObjectDigest, ObjectDigest>,
    store: &Store,
) -> Result<Spliced, ImageError> {
    let failed = |source| ImageError::Splice {
        wheels: group.iter().map(|w| w.file_name.to_string()).collect(),
        source,
    };
    let mut bytecode = BTreeMap::new();
    for wheel in group {
        if let Some(object) = compiled.get(&wheel.object) {
            let archive = Archive::open(store.file(object)?)
                .map_err(|error| failed(std::io::Error::other(error)))?;
            bytecode.insert(wheel.object, (*object, archive));
        }
    }
    let mut tree = FileTree::default();
    // Wheels, each followed by the archive of its compiled modules.
    let mut archives: Vec<(ObjectDigest, &Archive<ObjectFile>)> = Vec::new();
    for wheel in group {
        let Some((archive, installation)) = plans.get(wheel) else {
            continue;
        };
        let mut installation = installation.clone();
        let bytecode = bytecode.get(&wheel.object);
        if let Some((_, modules)) = bytecode {
            installation.record_bytecode(modules.entries().iter().map(|e| e.path.as_str()));
        }
        for file in installation.files {
            let (content, size) = match file.content {
                Content::Generated(bytes) => {
                    let size = bytes.len() as u64;
                    (Piece::Bytes(bytes), size)
                }
                Content::Entry(entry) => (
                    Piece::Entry {
                        wheel: archives.len(),
                        entry,
                        sha256: file.sha256,
                    },
                    archive.entries().get(entry).map_or(0, |entry| entry.size),
                ),
            };
            insert(&mut tree, file.path, content, size, file.executable)?;
        }
        archives.push((wheel.object, archive));
        if let Some((object, modules)) = bytecode {
            for (index, entry) in modules.entries().iter().enumerate() {
                let content = Piece::Entry {
                    wheel: archives.len(),
                    entry: index,
                    sha256: None,
                };
                insert(&mut tree, entry.path.clone(), content, entry.size, false)?;
            }
            archives.push((*object, modules));
        }
    }
    let open = || {
        archives
            .iter()
            .map(|(object, _)| store.file(object).map_err(std::io::Error::other))
            .collect()
    };
    splice::splice(&tree, &archives, open).map_err(failed)
}

fn insert(
    tree: &mut FileTree<Piece>,
    path: String,
    content: Piece,
    size: u64,
    executable: bool,
) -> Result<(), ImageError> {
    if tree.contains(&path) {
        return Ok(());
    }
    let node = Node::File {
        content,
        size,
        executable,
    };
    Ok(tree.insert(path, node)?)
}
