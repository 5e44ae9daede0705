//! The folder `.dags/`, as BigFlow leaves it for `deploy-dags`.

use std::path::{Path, PathBuf};

use forebay_store::ObjectDigest;
use jiff::civil::DateTime;

use super::render::{DagFile, DagFileName, InvalidDagFileName};
use super::start_time::WorkflowStart;
use crate::project::{InvalidName, Version, WorkflowId};

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
/// a reader never sees a part of the new one. A folder that is so already is left alone.
pub fn write_folder(
    directory: &Path,
    files: &[DagFile],
    image_version: &str,
) -> Result<(), FolderError> {
    if holds_exactly(directory, files, image_version) {
        return Ok(());
    }
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
    let version_file = fresh.join(IMAGE_VERSION_FILE);
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

fn holds_exactly(directory: &Path, files: &[DagFile], image_version: &str) -> bool {
    let has = |name: &str, bytes: &[u8]| {
        std::fs::read(directory.join(name)).is_ok_and(|found| found == bytes)
    };
    std::fs::read_dir(directory).is_ok_and(|entries| entries.count() == files.len() + 1)
        && has(IMAGE_VERSION_FILE, image_version.as_bytes())
        && files
            .iter()
            .all(|file| has(file.file_name.as_str(), &file.bytes))
}

const IMAGE_VERSION_FILE: &str = "image_version.txt";

/// Why a folder of DAG files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFolderError {
    /// A file or the folder cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// There is no DAG file in it.
    #[error("{} has no DAG file", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A Python file that does not begin as BigFlow's DAG files do.
    #[error("{} is no DAG file of BigFlow's: it has no comment `# {missing}:` at its beginning", path.display())]
    NoHeader {
        /// The file.
        path: PathBuf,
        /// Which comment is missing.
        missing: &'static str,
    },
    /// A comment that says nothing.
    #[error("{}: the comment `# {key}:` says {value:?}, which is no date and time", path.display())]
    StartTime {
        /// The file.
        path: PathBuf,
        /// Which comment.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// A name in a comment that cannot be one.
    #[error("{}: {source}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: InvalidName,
    },
    /// A file whose name cannot stand in `dags/`.
    #[error(transparent)]
    FileName(#[from] InvalidDagFileName),
    /// Two files of one workflow.
    #[error("workflow {workflow} is in two files, {first} and {second}")]
    TwoFiles {
        /// The workflow.
        workflow: WorkflowId,
        /// One file.
        first: DagFileName,
        /// The other.
        second: DagFileName,
    },
    /// Files that were not built together.
    #[error(
        "the files were not built together: {first} says {first_value:?} in `# {key}:`, and {second} says {second_value:?}"
    )]
    Mixed {
        /// Which comment differs.
        key: &'static str,
        /// One file.
        first: DagFileName,
        /// What it says.
        first_value: String,
        /// The other file.
        second: DagFileName,
        /// What that says.
        second_value: String,
    },
}

/// What a build has left: DAG files that all run one image.
#[derive(Debug)]
pub struct DagFolder {
    /// The files, sorted by name. What decides them is all of their bytes.
    pub files: Vec<DagFile>,
    /// The image as they name it: `REPOSITORY:TAG` or `REPOSITORY@DIGEST`.
    pub image: String,
    /// The project's version that they were built from.
    pub version: Version,
}

const WORKFLOW: &str = "bigflow-workflow";
const VERSION: &str = "bigflow-build-ver";
const START: &str = "bigflow-startdate";
const IMAGE: &str = "bigflow-imageid";

/// Reads a folder that [`write_folder`] or BigFlow's `build-dags` has written, by the comments
/// that its `*.py` files begin with.
pub fn read_folder(directory: &Path) -> Result<DagFolder, ReadFolderError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ReadFolderError::Read { path, source }
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "py") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut folder: Option<DagFolder> = None;
    for path in paths {
        let bytes = std::fs::read(&path).map_err(failed(&path))?;
        let (file, version, image) = read_file(&path, bytes)?;
        let Some(folder) = &mut folder else {
            folder = Some(DagFolder {
                files: vec![file],
                image,
                version,
            });
            continue;
        };
        folder.add(file, &version, image)?;
    }
    folder.ok_or_else(|| ReadFolderError::Empty {
        path: directory.to_owned(),
    })
}

impl DagFolder {
    fn add(
        &mut self,
        file: DagFile,
        version: &Version,
        image: String,
    ) -> Result<(), ReadFolderError> {
        let mut files = self.files.iter();
        if let Some(first) = files.find(|first| first.workflow == file.workflow) {
            return Err(ReadFolderError::TwoFiles {
                workflow: file.workflow,
                first: first.file_name.clone(),
                second: file.file_name,
            });
        }
        let compared = [
            (IMAGE, self.image.as_str(), image.as_str()),
            (VERSION, self.version.as_str(), version.as_str()),
        ];
        let different = compared
            .into_iter()
            .find(|(_, first, second)| first != second);
        if let (Some((key, first_value, second_value)), Some(first)) =
            (different, self.files.first())
        {
            return Err(ReadFolderError::Mixed {
                key,
                first: first.file_name.clone(),
                first_value: first_value.to_owned(),
                second: file.file_name,
                second_value: second_value.to_owned(),
            });
        }
        self.files.push(file);
        Ok(())
    }
}

/// A DAG file that BigFlow or Forebay has built, with what its first comments say.
#[derive(Debug, Clone)]
pub struct BuiltDagFile {
    /// The file. What decides it is all of its bytes.
    pub file: DagFile,
    /// The project's version that it was built from.
    pub version: Version,
    /// The image as it names it: `REPOSITORY:TAG` or `REPOSITORY@DIGEST`.
    pub image: String,
}

/// Reads one DAG file by the comments that it begins with.
pub fn read_dag_file(name: &str, bytes: Vec<u8>) -> Result<BuiltDagFile, ReadFolderError> {
    let (file, version, image) = read_file(Path::new(name), bytes)?;
    Ok(BuiltDagFile {
        file,
        version,
        image,
    })
}

/// A file with the version and the image that it names.
fn read_file(path: &Path, bytes: Vec<u8>) -> Result<(DagFile, Version, String), ReadFolderError> {
    let text = String::from_utf8_lossy(&bytes);
    let comments: Vec<(&str, &str)> = text
        .lines()
        .map_while(|line| line.strip_prefix('#'))
        .filter_map(|comment| comment.split_once(':'))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let comment = |key: &'static str| {
        let mut comments = comments.iter();
        let found = comments.find(|(known, value)| *known == key && !value.is_empty());
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| ReadFolderError::NoHeader {
                path: path.to_owned(),
                missing: key,
            })
    };
    let bad_name = |source| ReadFolderError::Name {
        path: path.to_owned(),
        source,
    };
    let start = comment(START)?;
    let time: DateTime = start.parse().map_err(|_| ReadFolderError::StartTime {
        path: path.to_owned(),
        key: START,
        value: start.to_owned(),
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut decisive = b"forebay DAG file 1\n".to_vec();
    decisive.extend_from_slice(&bytes);
    let file = DagFile {
        workflow: comment(WORKFLOW)?.parse().map_err(bad_name)?,
        file_name: name.parse()?,
        identity: ObjectDigest::of(&decisive),
        start: Some(WorkflowStart {
            time,
            explicit: false,
        }),
        bytes: Vec::new(),
    };
    let version = comment(VERSION)?.parse().map_err(bad_name)?;
    let image = comment(IMAGE)?.to_owned();
    Ok((DagFile { bytes, ..file }, version, image))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dag_file(workflow: &str, version: &str, image: &str) -> String {
        format!(
            "# This file was generated by `bigflow build-dags`\n# bigflow-workflow:  \t{workflow}\n# bigflow-build-ver: \t{version}\n# bigflow-startdate: \t2026-01-31T15:00:00\n# bigflow-imageid:   \t{image}\n\nimport datetime\n"
        )
    }

    #[test]
    fn a_built_folder_is_read_by_its_files_first_comments() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
        let read = || read_folder(directory.path());
        assert!(matches!(read(), Err(ReadFolderError::Empty { .. })));
        write("image_version.txt", "r:1-0").unwrap();
        write("b_dag.py", &dag_file("b", "1.0", "r:1-0")).unwrap();
        write("a_dag.py", &dag_file("a", "1.0", "r:1-0")).unwrap();
        let folder = read().unwrap();
        assert_eq!(
            (folder.image.as_str(), folder.version.as_str()),
            ("r:1-0", "1.0")
        );
        let workflows: Vec<_> = folder
            .files
            .iter()
            .map(|file| file.workflow.as_str())
            .collect();
        assert_eq!(workflows, ["a", "b"]);
        assert_eq!(
            folder.files[0].start.unwrap().time,
            jiff::civil::datetime(2026, 1, 31, 15, 0, 0, 0)
        );
        assert_eq!(
            folder.files[1].bytes,
            dag_file("b", "1.0", "r:1-0").as_bytes()
        );
        let before = folder.files[1].identity;
        write("b_dag.py", &(dag_file("b", "1.0", "r:1-0") + "# changed\n")).unwrap();
        assert_ne!(read().unwrap().files[1].identity, before);

        write("b_dag.py", &dag_file("a", "1.0", "r:1-0")).unwrap();
        assert!(matches!(read(), Err(ReadFolderError::TwoFiles { .. })));
        write("b_dag.py", &dag_file("b", "1.0", "r:1-1")).unwrap();
        assert!(matches!(read(), Err(ReadFolderError::Mixed { .. })));
        write("b_dag.py", "import datetime\n").unwrap();
        let error = read().unwrap_err().to_string();
        assert!(
            error.contains("b_dag.py is no DAG file of BigFlow's"),
            "{error}"
        );
    }

    #[test]
    fn the_folder_holds_exactly_the_new_files() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join(".dags");
        let file = |name: &str| DagFile {
            workflow: "w".parse().unwrap(),
            file_name: name.parse().unwrap(),
            bytes: name.as_bytes().to_vec(),
            identity: ObjectDigest::of(b""),
            start: None,
        };
        write_folder(&folder, &[file("a_dag.py"), file("b_dag.py")], "r:1").unwrap();
        write_folder(&folder, &[file("c_dag.py")], "r:2").unwrap();
        let written = folder.metadata().unwrap().modified().unwrap();
        write_folder(&folder, &[file("c_dag.py")], "r:2").unwrap();
        assert_eq!(folder.metadata().unwrap().modified().unwrap(), written);
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
