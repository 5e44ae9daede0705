//! The folder `.dags/`, as BigFlow leaves it for `deploy-dags`.

use std::path::{Path, PathBuf};

use super::render::DagFile;

/// Why the folder could not be written. The old one is still there.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written: {source}", path.display())]
pub struct FolderError {
    path: PathBuf,
    source: std::io::Error,
}

/// Writes `directory` anew with the DAG files and `image_version.txt`, which has no final newline.
///
/// Everything is written beside it first; then the old folder is moved away and the
/// new one takes its name. So a build that fails leaves the old folder as it was, and
/// a reader never sees a part of the new one.
pub fn write_folder(
    directory: &Path,
    files: &[DagFile],
    image_version: &str,
) -> Result<(), FolderError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FolderError { path, source }
    };
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let scratch = tempfile::Builder::new()
        .prefix(".dags-")
        .tempdir_in(parent)
        .map_err(failed(parent))?;
    let fresh = scratch.path().join("new");
    std::fs::create_dir(&fresh).map_err(failed(&fresh))?;
    let version_file = fresh.join("image_version.txt");
    std::fs::write(&version_file, image_version).map_err(failed(&version_file))?;
    for file in files {
        let path = fresh.join(file.file_name.as_str());
        std::fs::write(&path, &file.bytes).map_err(failed(&path))?;
    }
    let old = scratch.path().join("old");
    match std::fs::rename(directory, &old) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(directory)(error)),
    }
    if let Err(error) = std::fs::rename(&fresh, directory) {
        let _ = std::fs::rename(&old, directory);
        return Err(failed(directory)(error));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use forebay_store::ObjectDigest;

    use super::*;

    #[test]
    fn the_folder_holds_exactly_the_new_files() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join(".dags");
        let file = |name: &str| DagFile {
            workflow: "w".parse().unwrap(),
            file_name: name.parse().unwrap(),
            bytes: name.as_bytes().to_vec(),
            identity: ObjectDigest::of(b""),
        };
        write_folder(&folder, &[file("a_dag.py"), file("b_dag.py")], "r:1").unwrap();
        write_folder(&folder, &[file("c_dag.py")], "r:2").unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["c_dag.py", "image_version.txt"]);
        assert_eq!(
            std::fs::read_to_string(folder.join("image_version.txt")).unwrap(),
            "r:2"
        );
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }
}
