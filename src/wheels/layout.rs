//! Unpacks a set of wheels into a directory that an interpreter can import from.

use std::fs::{self, File, OpenOptions};
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

/// Beside the unpacked files: says that all of them are on the disk.
const COMPLETE: &str = "complete";
/// The folder of the unpacked files.
const ROOT: &str = "root";
/// What folders that are being built are called.
const BUILDING: &str = "building-";

/// Unpacks `set` once; the same set is found again by its digest.
///
/// The result is for `sys.path` of an interpreter that fits the set. It is built
/// beside its place: files, their way to the disk, then the marker, then the
/// renaming. So it is never seen half, not even after the machine stopped. One
/// process builds at a time, and clears away what killed ones left.
///
/// # Errors
/// A wheel that is refused or conflicts with another, or a failure to write.
pub fn lay_out(set: &WheelSet, store: &Store) -> Result<PathBuf, WheelError> {
    let scheme = InstallScheme::relative();
    let area = store.scratch().join("wheel-sets");
    let place = area.join(set.digest().to_string());
    let packages = place.join(ROOT).join(&scheme.purelib);
    let marker = place.join(COMPLETE);
    if marker.is_file() {
        return Ok(packages);
    }
    let cannot_make = || WheelError::io(format!("cannot make {}", area.display()));
    fs::create_dir_all(&area).map_err(cannot_make())?;
    let lock = File::create(area.join("lock")).map_err(cannot_make())?;
    lock.lock().map_err(cannot_make())?;
    // Somebody else may have been quicker.
    if marker.is_file() {
        return Ok(packages);
    }
    clear_leftovers(&area, &place).map_err(cannot_make())?;
    let building = tempfile::Builder::new()
        .prefix(BUILDING)
        .tempdir_in(&area)
        .map_err(cannot_make())?;
    let root = building.path().join(ROOT);
    set.bring(store)?;
    let plans = set
        .wheels
        .iter()
        .map(|wheel| wheel.plan_installation(store, &scheme))
        .collect::<Result<Vec<_>, _>>()?;
    check_conflicts(plans.iter().map(|(_, installation)| installation))?;
    for (wheel, (archive, installation)) in set.wheels.iter().zip(&plans) {
        unpack(archive, installation, &root)
            .map_err(WheelError::io(format!("cannot unpack {}", wheel.file_name)))?;
    }
    fs::create_dir_all(root.join(&scheme.purelib)).map_err(cannot_make())?;
    finish(building, &area, &place)
        .map_err(WheelError::io(format!("cannot make {}", place.display())))?;
    Ok(packages)
}

/// Removes what killed builds left, and what stands at `place` without a marker.
/// The caller holds the lock: nobody is building.
fn clear_leftovers(area: &Path, place: &Path) -> io::Result<()> {
    for entry in fs::read_dir(area)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(BUILDING) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Brings the unpacked files to the disk, then the marker, then the name.
fn finish(building: tempfile::TempDir, area: &Path, place: &Path) -> io::Result<()> {
    sync_all_files(building.path())?;
    File::create(building.path().join(COMPLETE))?.sync_all()?;
    File::open(building.path())?.sync_all()?;
    fs::rename(building.path(), place)?;
    // Nothing is left for it to remove.
    let _ = building.keep();
    File::open(area)?.sync_all()
}

/// One call for thousands of files.
fn sync_all_files(directory: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(File::open(directory)?)?;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        rustix::fs::sync();
    }
    Ok(())
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
    mut out: File,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wheels::LockedWheel;
    use crate::wheels::testing::WheelBuilder;

    fn one_wheel(store: &Store) -> WheelSet {
        let wheel = WheelBuilder::new("some").file("some.py", b"x = 1\n");
        let mut batch = store.begin().unwrap();
        let info = batch.put(&wheel.build()).unwrap();
        batch.commit().unwrap();
        WheelSet::new(vec![LockedWheel {
            file_name: wheel.file_name().parse().unwrap(),
            object: info.digest,
            sha256: info.sha256,
            size: info.size,
        }])
        .unwrap()
    }

    #[test]
    fn what_has_no_marker_is_made_again_and_leftovers_go() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let set = one_wheel(&store);
        let packages = lay_out(&set, &store).unwrap();
        let module = packages.join("some.py");
        assert_eq!(fs::read(&module).unwrap(), b"x = 1\n");

        // As the disk may look after the machine stopped, and after a process was killed.
        let area = store.scratch().join("wheel-sets");
        let place = area.join(set.digest().to_string());
        fs::remove_file(place.join(COMPLETE)).unwrap();
        fs::write(&module, "").unwrap();
        let killed = area.join(format!("{BUILDING}xyz"));
        fs::create_dir_all(killed.join(ROOT)).unwrap();
        assert_eq!(lay_out(&set, &store).unwrap(), packages);
        assert_eq!(fs::read(&module).unwrap(), b"x = 1\n");
        assert!(!killed.exists());

        // What is complete is left alone.
        fs::write(&module, "mine").unwrap();
        lay_out(&set, &store).unwrap();
        assert_eq!(fs::read(&module).unwrap(), b"mine");
    }

    #[test]
    fn several_at_once_find_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let set = one_wheel(&store);
        let all: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| lay_out(&set, &store).unwrap()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(all.iter().all(|place| place == &all[0]));
        assert!(all[0].join("some.py").is_file());
    }
}
