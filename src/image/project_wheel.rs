//! The project's wheel, by the same rules as its layer.

use std::collections::BTreeMap;
use std::io::Read as _;

use forebay_store::{Realisation, Recipe, Sha256Digest, Store};

use super::ImageError;
use super::context::BuildContext;
use super::members::LastLayer;
use super::metadata;
use super::project::ProjectSource;
use super::project_install::{Installation, Installed};
use super::project_layer::Collected;
use super::tar::Node;
use crate::wheels::{ArchiveWriter, InstallScheme, write_record};

/// Changes whenever the same project would give another wheel.
const WHEEL_VERSION: u32 = 2;

/// The only output of a wheel's recipe.
const WHEEL: &str = "wheel";

/// The project's wheel, the same as in the image: its file name and its bytes, which depend on
/// nothing but the sources; from the store if it was made of them before.
///
/// # Errors
/// A project that setuptools would be needed for, a file that changed since the
/// scan, or the store.
pub fn project_wheel(
    source: &ProjectSource<'_>,
    context: &BuildContext<'_>,
    store: &Store,
) -> Result<(String, Vec<u8>), ImageError> {
    let collected = Collected::of(source, context)?;
    let stem = format!(
        "{}-{}",
        source.name.replace('-', "_"),
        collected.version.replace('-', "_")
    );
    let name = format!("{stem}-py3-none-any.whl");
    let inputs = (&name, collected.digest.to_string());
    let key = Recipe::new("project-wheel", WHEEL_VERSION, &inputs)?.key();
    // Another machine makes it as quickly as it would fetch it.
    let known = store.local_realisation(&key)?;
    if let Some(digest) = known.and_then(|known| known.outputs.get(WHEEL).copied())
        && let Ok(bytes) = store.read(&digest)
    {
        return Ok((name, bytes));
    }
    let bytes = write_wheel(source, context, collected, &stem)?;
    let mut batch = store.begin()?;
    let outputs = BTreeMap::from([(WHEEL.to_owned(), batch.put(&bytes)?.digest)]);
    batch.realise(&key, &Realisation { outputs })?;
    batch.commit()?;
    Ok((name, bytes))
}

fn write_wheel(
    source: &ProjectSource<'_>,
    context: &BuildContext<'_>,
    collected: Collected,
    stem: &str,
) -> Result<Vec<u8>, ImageError> {
    let cannot_write = || ImageError::io("cannot write the project's wheel");
    let Collected {
        files,
        existing_pyproject,
        version,
        ..
    } = collected;
    // The folders of a wheel (PyPA specification "Binary distribution format"); `#!python` is
    // what installing replaces.
    let scheme = InstallScheme {
        purelib: "purelib".to_owned(),
        platlib: "purelib".to_owned(),
        scripts: "scripts".to_owned(),
        headers: "headers".to_owned(),
        data: "data".to_owned(),
        interpreter: "python".to_owned(),
    };
    let requires = files.requires.as_deref();
    let pyproject = metadata::pyproject(&existing_pyproject, source, &version, requires)?;
    let made_by_installing: Vec<String> = files
        .entry_points
        .iter()
        .filter(|(group, ..)| matches!(group.as_str(), "console_scripts" | "gui_scripts"))
        .map(|(_, name, _)| format!("scripts/{name}"))
        .collect();
    let wheel = Installation {
        source,
        context,
        scheme: &scheme,
        version: &version,
        pyproject,
        files,
        last: LastLayer::none(),
    };
    let Installed { tree, .. } = wheel.install(BTreeMap::new())?;
    let mut contents: BTreeMap<String, (Vec<u8>, bool)> = BTreeMap::new();
    for (path, node) in tree.iter() {
        let Node::File {
            content,
            executable,
            ..
        } = node
        else {
            continue;
        };
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_installers = path.ends_with(&format!("{stem}.dist-info/{name}"))
            && matches!(name, "INSTALLER" | "RECORD");
        if is_installers || made_by_installing.iter().any(|made| made == path) {
            continue;
        }
        let place = match path.strip_prefix("purelib/") {
            Some(rest) => rest.to_owned(),
            None => format!("{stem}.data/{path}"),
        };
        let mut bytes = Vec::new();
        content
            .reader(context)?
            .read_to_end(&mut bytes)
            .map_err(ImageError::io(format!("cannot read /{path}")))?;
        contents.insert(place, (bytes, *executable));
    }
    let record_path = format!("{stem}.dist-info/RECORD");
    let recorded = contents.iter().map(|(path, (bytes, _))| {
        (
            path.as_str(),
            Some(Sha256Digest::of(bytes)),
            bytes.len() as u64,
        )
    });
    let record = write_record(recorded, "", &record_path);
    contents.insert(record_path, (record, false));
    let mut writer = ArchiveWriter::new(Vec::new(), 6);
    for (path, (bytes, executable)) in &contents {
        writer
            .add(path, bytes, *executable)
            .map_err(cannot_write())?;
    }
    writer.finish().map_err(cannot_write())
}
