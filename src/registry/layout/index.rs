//! `index.json` and `oci-layout`: which manifests a layout has, under which tags.
//!
//! Other tools' members are kept as they are, so the index is edited as JSON.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::super::{ManifestName, RegistryError};
use super::blobs::{publish, staged_file};
use crate::oci::{Descriptor, MediaType, Tag};

/// The annotation that holds a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Beside `index.json`, so that two writers do not lose each other's tags. It stays.
const LOCK_FILE: &str = "index.json.lock";

/// The entry for a tag, or for a digest under whatever tag.
pub(super) fn find(
    layout: &Path,
    name: &ManifestName,
) -> Result<Option<Descriptor>, RegistryError> {
    let path = layout.join("index.json");
    let Some(index) = read(&path)? else {
        return Ok(None);
    };
    entries(&index)
        .find(|entry| names(entry, name))
        .map(|entry| {
            Descriptor::deserialize(entry).map_err(|error| malformed(&path, error.to_string()))
        })
        .transpose()
}

/// All tags. Names that are none, which other tools write too, are left out.
pub(super) fn tags(layout: &Path) -> Result<Vec<Tag>, RegistryError> {
    let index = read(&layout.join("index.json"))?.unwrap_or_default();
    let mut tags: Vec<Tag> = entries(&index)
        .filter_map(|entry| {
            entry
                .get("annotations")?
                .get(REF_NAME)?
                .as_str()?
                .parse()
                .ok()
        })
        .collect();
    tags.sort();
    Ok(tags)
}

/// Every manifest that the index names, each once.
pub(super) fn manifests(layout: &Path) -> Result<Vec<Descriptor>, RegistryError> {
    let path = layout.join("index.json");
    let index = read(&path)?.unwrap_or_default();
    let mut found: Vec<Descriptor> = Vec::new();
    for entry in entries(&index) {
        let descriptor =
            Descriptor::deserialize(entry).map_err(|error| malformed(&path, error.to_string()))?;
        if found.iter().all(|known| known.digest != descriptor.digest) {
            found.push(descriptor);
        }
    }
    Ok(found)
}

/// Adds a manifest whose blobs are there; a tag moves to it from any other.
pub(super) fn insert(
    layout: &Path,
    name: &ManifestName,
    descriptor: &Descriptor,
) -> Result<(), RegistryError> {
    let path = layout.join("index.json");
    let failed = |source: io::Error| cannot_write(&path, source);
    fs::create_dir_all(layout).map_err(failed)?;
    let _lock = lock(layout).map_err(failed)?;

    let marker = layout.join("oci-layout");
    if !marker.exists() {
        write(&marker, &json!({"imageLayoutVersion": "1.0.0"})).map_err(failed)?;
    }
    let mut index = read(&path)?.unwrap_or_else(
        || json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": []}),
    );
    let known = entries(&index).any(|entry| names(entry, name) && is(entry, descriptor));
    if known {
        return Ok(());
    }
    let mut entry =
        serde_json::to_value(descriptor).map_err(|error| malformed(&path, error.to_string()))?;
    if let (ManifestName::Tag(tag), Some(members)) = (name, entry.as_object_mut()) {
        members.insert("annotations".to_owned(), json!({REF_NAME: tag.as_str()}));
    }
    let manifests = index
        .get_mut("manifests")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| malformed(&path, "it has no list \"manifests\"".to_owned()))?;
    if let ManifestName::Tag(_) = name {
        manifests.retain(|entry| !names(entry, name));
    }
    manifests.push(entry);
    write(&path, &index).map_err(failed)
}

/// Takes a tag away. Its manifest keeps an entry without one.
pub(super) fn remove(layout: &Path, tag: &Tag) -> Result<(), RegistryError> {
    let path = layout.join("index.json");
    let failed = |source: io::Error| cannot_write(&path, source);
    if !path.exists() {
        return Ok(());
    }
    let _lock = lock(layout).map_err(failed)?;
    let mut index = read(&path)?.unwrap_or_default();
    let name = ManifestName::Tag(tag.clone());
    let manifests = index.get_mut("manifests").and_then(Value::as_array_mut);
    let mut entries = manifests.into_iter().flatten();
    let Some(entry) = entries.find(|entry| names(entry, &name)) else {
        return Ok(());
    };
    if let Some(annotations) = entry.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(REF_NAME);
    }
    write(&path, &index).map_err(failed)
}

/// Held until the file is closed.
fn lock(layout: &Path) -> io::Result<File> {
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(layout.join(LOCK_FILE))?;
    lock.lock()?;
    Ok(lock)
}

fn cannot_write(path: &Path, source: io::Error) -> RegistryError {
    RegistryError::Io {
        action: format!("cannot write {}", path.display()),
        source,
    }
}

fn read(path: &PathBuf) -> Result<Option<Value>, RegistryError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(RegistryError::Io {
                action: format!("cannot read {}", path.display()),
                source,
            });
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| malformed(path, error.to_string()))
}

fn write(path: &Path, value: &Value) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let staged = staged_file(directory)?;
    serde_json::to_writer(staged.as_file(), value)?;
    publish(staged, path)
}

fn entries(index: &Value) -> impl Iterator<Item = &Value> {
    index
        .get("manifests")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn names(entry: &Value, name: &ManifestName) -> bool {
    let found = match name {
        ManifestName::Digest(_) => entry.get("digest"),
        ManifestName::Tag(_) => entry.get("annotations").and_then(|all| all.get(REF_NAME)),
    };
    found.and_then(Value::as_str) == Some(&name.to_string())
}

fn is(entry: &Value, descriptor: &Descriptor) -> bool {
    entry.get("digest").and_then(Value::as_str) == Some(&descriptor.digest.to_string())
}

fn malformed(path: &Path, problem: String) -> RegistryError {
    RegistryError::Malformed {
        what: path.display().to_string(),
        problem,
    }
}
