//! Unpacks a set of wheels into a directory that an interpreter can import from.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use forebay_store::{ObjectFile, Store};
use sha2::Digest as _;

use super::{
    Archive, Content, InstallScheme, Installation, InstalledFile, WheelError, WheelSet,
    check_conflicts,
};
use crate::oci::Sha256Digest;

/// Unpacks `set` once; the same set is found again by its digest.
///
/// The result is for `sys.path` of an interpreter that fits the set. It is built
/// beside its place and renamed when it is complete, so that it is never seen half.
///
/// # Errors
/// A wheel that is refused or conflicts with another, or a failure to write.
pub fn lay_out(set: &WheelSet, store: &Store) -> Result<PathBuf, WheelError> {
    let scheme = InstallScheme::relative();
    let area = store.root().join("scratch").join("wheel-sets");
    let place = area.join(set.digest().to_string());
    let packages = place.join(&scheme.purelib);
    if packages.is_dir() {
        return Ok(packages);
    }
    let cannot_make = || WheelError::io(format!("cannot make {}", area.display()));
    fs::create_dir_all(&area).map_err(cannot_make())?;
    let building = tempfile::tempdir_in(&area).map_err(cannot_make())?;
    let plans = set
        .wheels
        .iter()
        .map(|wheel| wheel.plan_installation(store, &scheme))
        .collect::<Result<Vec<_>, _>>()?;
    check_conflicts(plans.iter().map(|(_, installation)| installation))?;
    for (wheel, (archive, installation)) in set.wheels.iter().zip(&plans) {
        unpack(archive, installation, building.path())
            .map_err(WheelError::io(format!("cannot unpack {}", wheel.file_name)))?;
    }
    fs::create_dir_all(building.path().join(&scheme.purelib)).map_err(cannot_make())?;
    let built = building.keep();
    match fs::rename(&built, &place) {
        Ok(()) => Ok(packages),
        // Somebody else was quicker; theirs is the same.
        Err(_) if packages.is_dir() => {
            fs::remove_dir_all(&built).map_err(cannot_make())?;
            Ok(packages)
        }
        Err(error) => Err(WheelError::io(format!("cannot make {}", place.display()))(
            error,
        )),
    }
}

fn unpack(
    archive: &Archive<ObjectFile>,
    installation: &Installation,
    root: &Path,
) -> io::Result<()> {
    for file in &installation.files {
        let path = root.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mode = if file.executable { 0o755 } else { 0o644 };
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path);
        match opened {
            Ok(out) => write_file(archive, file, out)?,
            // An identical file of another wheel: conflicts were refused before.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_file(
    archive: &Archive<ObjectFile>,
    file: &InstalledFile,
    mut out: fs::File,
) -> io::Result<()> {
    let entry = match &file.content {
        Content::Generated(bytes) => return out.write_all(bytes),
        Content::Entry(index) => archive
            .entries()
            .get(*index)
            .ok_or(io::ErrorKind::NotFound)?,
    };
    let mut reader = archive.reader(entry);
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = reader.read(&mut buffer)?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hash.update(bytes);
        out.write_all(bytes)?;
    }
    let actual = Sha256Digest::from_bytes(hash.finalize().into());
    if file.sha256.is_some_and(|expected| expected != actual) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{:?} is not what RECORD says", entry.path),
        ));
    }
    Ok(())
}
