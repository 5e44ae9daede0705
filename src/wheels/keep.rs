//! Wheels in the store, and what requirements came to before.

use std::fs::{self, File};
use std::path::Path;

use forebay_store::{Realisation, Recipe, Store};

use super::download::Sources;
use super::{
    Archive, InstallScheme, Installation, LockedDistribution, LockedWheel, Resolution, WheelError,
    WheelFileName, WheelSet,
};

/// The output of a realisation that holds the set itself.
const SET: &str = "set";
/// The output of a realisation that holds the lock.
const LOCK: &str = "lock";

/// What `recipe` came to before. A set of another version of this program counts for nothing.
pub(super) fn known(recipe: &Recipe, store: &Store) -> Result<Option<Resolution>, WheelError> {
    let outputs = store
        .realisation(&recipe.key())?
        .unwrap_or_default()
        .outputs;
    let (Some(set), Some(lock)) = (outputs.get(SET), outputs.get(LOCK)) else {
        return Ok(None);
    };
    let set = serde_json::from_slice(&store.read(set)?);
    let distributions = serde_json::from_slice(&store.read(lock)?);
    Ok(set
        .and_then(|set| {
            Ok(Resolution {
                set,
                distributions: distributions?,
            })
        })
        .ok())
}

/// Checks the wheels in `directory` and brings them into the store: the wheels
/// first, the set that names them, then the realisation, in one batch.
pub(super) fn keep(
    directory: &Path,
    sources: &Sources,
    recipe: &Recipe,
    store: &Store,
) -> Result<Resolution, WheelError> {
    let list = || WheelError::io(format!("cannot list {}", directory.display()));
    let mut batch = store.begin()?;
    let mut wheels = Vec::new();
    for file in fs::read_dir(directory).map_err(list())? {
        let file = file.map_err(list())?;
        let file_name: WheelFileName = file.file_name().to_string_lossy().parse()?;
        check(&file.path(), &file_name)?;
        let open = || WheelError::io(format!("cannot read {}", file.path().display()));
        let info = batch.put_reader(&mut File::open(file.path()).map_err(open())?)?;
        wheels.push(LockedWheel {
            file_name,
            object: info.digest,
            sha256: info.sha256,
            size: info.size,
        });
    }
    let set = WheelSet::new(wheels)?;
    let distributions: Vec<LockedDistribution> = set
        .wheels
        .iter()
        .map(|wheel| LockedDistribution {
            file: wheel.file_name.clone(),
            sha256: wheel.sha256,
            source: sources.get(wheel.file_name.as_str()).cloned(),
        })
        .collect();
    let failed =
        |error: serde_json::Error| WheelError::io("cannot write the set of wheels")(error.into());
    let mut realisation = Realisation::default();
    for (output, bytes) in [
        (SET, serde_json::to_vec(&set).map_err(failed)?),
        (LOCK, serde_json::to_vec(&distributions).map_err(failed)?),
    ] {
        let object = batch.put(&bytes)?.digest;
        realisation.outputs.insert(output.to_owned(), object);
    }
    for wheel in &set.wheels {
        realisation
            .outputs
            .insert(wheel.file_name.to_string(), wheel.object);
    }
    batch.realise(&recipe.key(), &realisation)?;
    batch.commit()?;
    Ok(Resolution { set, distributions })
}

/// Refuses a wheel that could not be installed, before the store has it.
fn check(path: &Path, file_name: &WheelFileName) -> Result<(), WheelError> {
    let refused = |source| WheelError::Refused {
        wheel: file_name.to_string(),
        source,
    };
    let file =
        File::open(path).map_err(WheelError::io(format!("cannot read {}", path.display())))?;
    let archive = Archive::open(file).map_err(refused)?;
    Installation::plan(&archive, file_name, &InstallScheme::relative()).map_err(refused)?;
    Ok(())
}
