//! Finds the project's Python, and remembers what it said about itself.
//!
//! Two facts are kept in the store: which executable a shim stands for, by
//! everything a shim looks at; and what an executable says, by the file's identity
//! and the modification times of the folders that it imports from. While both hold,
//! no process is started.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use forebay_store::{ObjectDigest, Recipe, Store};
use serde::{Deserialize, Serialize};

use super::remember::{recall, remember};
use super::{Interpreter, PythonError, run_script};

const INSPECT_SCRIPT: &str = concat!(
    include_str!("scripts/common.py"),
    include_str!("scripts/inspect.py")
);

/// The recipes' version: raise it when the script answers otherwise.
const RECIPE_VERSION: u32 = 1;

/// Files in the project's folder or above by which shims choose a version.
const VERSION_FILES: [&str; 2] = [".python-version", ".tool-versions"];

/// Variables by which shims choose a version, and by which Python chooses what it imports.
const SHIM_VARIABLES: [&str; 5] = [
    "PATH",
    "PYENV_VERSION",
    "PYENV_ROOT",
    "PYENV_DIR",
    "ASDF_DATA_DIR",
];
const PYTHON_VARIABLES: [&str; 5] = [
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONNOUSERSITE",
    "PYTHONUSERBASE",
    "HOME",
];

/// Finds the interpreter: `explicit` (a path, or a name on `PATH`), else the active virtual
/// environment, else the project's `.venv`, else `python3` on `PATH`.
pub fn find(
    explicit: Option<&Path>,
    project_directory: &Path,
    store: &Store,
) -> Result<Interpreter, PythonError> {
    let candidate = choose(explicit, project_directory)?;
    let shim = if is_script(&candidate)? {
        Some(Recipe::new(
            "python-shim",
            RECIPE_VERSION,
            &ShimInputs::observe(&candidate, project_directory)?,
        )?)
    } else {
        None
    };
    let executable = match &shim {
        None => Some(candidate.clone()),
        Some(recipe) => recall::<PathBuf>(store, recipe)?.filter(|path| path.is_file()),
    };
    if let Some(executable) = &executable
        && let Some(known) = recall::<Inspection>(store, &facts_recipe(executable)?)?
        && known.still_holds()
    {
        return Ok(known.interpreter);
    }
    let inspection: Inspection =
        run_script(&candidate, INSPECT_SCRIPT, &(), project_directory, &[])?;
    let interpreter = &inspection.interpreter;
    let mut batch = store.begin()?;
    if let Some(recipe) = &shim {
        remember(&mut batch, recipe, &interpreter.executable)?;
    }
    let executable = executable.as_ref().filter(|_| shim.is_none());
    let facts = facts_recipe(executable.unwrap_or(&interpreter.executable))?;
    remember(&mut batch, &facts, &inspection)?;
    batch.commit()?;
    Ok(inspection.interpreter)
}

fn choose(explicit: Option<&Path>, project_directory: &Path) -> Result<PathBuf, PythonError> {
    let existing = |path: PathBuf, reason| {
        if path.is_file() {
            std::path::absolute(&path).map_err(|source| PythonError::Run {
                executable: path,
                what: "finding it",
                source,
            })
        } else {
            Err(PythonError::Missing { path, reason })
        }
    };
    if let Some(path) = explicit {
        let is_name = path.components().count() == 1 && !path.is_file();
        let found = is_name.then(|| on_path(path)).flatten();
        return existing(
            found.unwrap_or_else(|| path.to_owned()),
            "--python names it",
        );
    }
    if let Some(environment) = std::env::var_os("VIRTUAL_ENV").filter(|path| !path.is_empty()) {
        return existing(
            Path::new(&environment).join("bin/python"),
            "VIRTUAL_ENV says that a virtual environment is active",
        );
    }
    let own = project_directory.join(".venv/bin/python");
    if own.is_file() {
        return existing(own, "the project has a .venv");
    }
    on_path(Path::new("python3")).ok_or(PythonError::NotFound)
}

pub(super) fn on_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|candidate| {
            candidate
                .metadata()
                .is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
        })
}

/// Whether the file begins with `#!`: a program that looks for the real one.
fn is_script(path: &Path) -> Result<bool, PythonError> {
    let mut start = [0; 2];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) => Ok(start == *b"#!"),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(source) => Err(PythonError::Run {
            executable: path.to_owned(),
            what: "reading it",
            source,
        }),
    }
}

/// A file as the file system knows it: what changes when the file does.
#[derive(Serialize)]
struct FileIdentity<'a> {
    path: &'a Path,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<'a> FileIdentity<'a> {
    fn of(path: &'a Path) -> Result<Self, PythonError> {
        let metadata = path.metadata().map_err(|source| PythonError::Run {
            executable: path.to_owned(),
            what: "looking at it",
            source,
        })?;
        Ok(Self {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The digest of a file that may not be there.
fn content(path: &Path) -> Option<ObjectDigest> {
    std::fs::read(path)
        .ok()
        .map(|bytes| ObjectDigest::of(&bytes))
}

/// Variables with the digests of their values: a value may be nobody's business.
fn variables(names: &[&str]) -> BTreeMap<String, Option<ObjectDigest>> {
    names
        .iter()
        .map(|name| {
            let value = std::env::var_os(name);
            let digest = value.map(|value| ObjectDigest::of(value.as_encoded_bytes()));
            ((*name).to_owned(), digest)
        })
        .collect()
}

#[derive(Serialize)]
struct ShimInputs<'a> {
    shim: FileIdentity<'a>,
    variables: BTreeMap<String, Option<ObjectDigest>>,
    version_files: BTreeMap<PathBuf, ObjectDigest>,
}

impl<'a> ShimInputs<'a> {
    fn observe(shim: &'a Path, project_directory: &Path) -> Result<Self, PythonError> {
        let mut places: Vec<PathBuf> = project_directory
            .ancestors()
            .flat_map(|directory| VERSION_FILES.map(|name| directory.join(name)))
            .collect();
        let roots = [
            std::env::var_os("PYENV_ROOT").map(PathBuf::from),
            std::env::home_dir().map(|home| home.join(".pyenv")),
        ];
        places.extend(roots.into_iter().flatten().map(|root| root.join("version")));
        Ok(Self {
            shim: FileIdentity::of(shim)?,
            variables: variables(&SHIM_VARIABLES),
            version_files: places
                .into_iter()
                .filter_map(|path| content(&path).map(|digest| (path, digest)))
                .collect(),
        })
    }
}

pub(super) fn facts_recipe(executable: &Path) -> Result<Recipe, PythonError> {
    #[derive(Serialize)]
    struct Inputs<'a> {
        executable: FileIdentity<'a>,
        variables: BTreeMap<String, Option<ObjectDigest>>,
        virtual_environment: Option<ObjectDigest>,
    }
    let virtual_environment = executable
        .parent()
        .and_then(Path::parent)
        .and_then(|root| content(&root.join("pyvenv.cfg")));
    let inputs = Inputs {
        executable: FileIdentity::of(executable)?,
        variables: variables(&PYTHON_VARIABLES),
        virtual_environment,
    };
    Ok(Recipe::new("python-facts", RECIPE_VERSION, &inputs)?)
}

/// What the script answers, and the store remembers.
#[derive(Serialize, Deserialize)]
struct Inspection {
    interpreter: Interpreter,
    /// The folders that it imports from, with their modification times in
    /// nanoseconds: an installed or removed package changes them.
    watched: Vec<(PathBuf, Option<i128>)>,
}

impl Inspection {
    fn still_holds(&self) -> bool {
        self.watched.iter().all(|(path, known)| {
            let modified = path.metadata().ok().map(|metadata| {
                i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
            });
            modified == *known
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A "shim" that counts its starts and runs the real Python.
    fn shim(directory: &Path) -> PathBuf {
        let path = directory.join("python-shim");
        let log = directory.join("starts");
        let text = format!(
            "#!/bin/sh\necho start >> '{}'\nexec /usr/bin/env python3 \"$@\"\n",
            log.display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_second_time_no_process_is_started() {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path().join("project");
        std::fs::create_dir(&project).unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let shim = shim(directory.path());
        let starts = || {
            std::fs::read_to_string(directory.path().join("starts"))
                .unwrap()
                .lines()
                .count()
        };

        let first = find(Some(&shim), &project, &store).unwrap();
        assert_ne!(first.executable, shim, "the shim is resolved");
        assert_eq!(first.version.major, 3);
        let second = find(Some(&shim), &project, &store).unwrap();
        assert_eq!(second, first);
        assert_eq!(starts(), 1);

        std::fs::write(project.join(".tool-versions"), "").unwrap();
        find(Some(&shim), &project, &store).unwrap();
        assert_eq!(starts(), 2, "a shim chooses by that file");
    }

    #[test]
    fn a_python_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let error = find(Some(Path::new("/nowhere/python")), directory.path(), &store).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--python names it: there is no Python at /nowhere/python"
        );
    }
}
