//! What a run of the project's code depended on.
//!
//! The scripts tell the *names* of what the code read (`scripts/trace.py`); the values that
//! they have now are the key of the remembered result. As long as they are the same, the
//! code would do the same again.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use forebay_store::{Digesting, ObjectDigest, Tree, TreeEntryKind};
use serde::{Deserialize, Serialize};

/// Variables that differ from shell to shell and say nothing: they do not count where
/// the code went through all variables.
const NOISE: [&str; 6] = ["_", "OLDPWD", "PWD", "SHLVL", "COLUMNS", "LINES"];

/// What builds leave in a project's folder: it does not count where the code lists that folder.
const BUILT: [&str; 6] = [".dags", ".git", ".image", "__pycache__", "build", "dist"];

/// The names of what a run read. Paths are relative to the project's directory, or absolute
/// where they lie outside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trace {
    files: Vec<String>,
    directories: Vec<String>,
    looked_up: Vec<String>,
    variables: Vec<String>,
    prefixes: Vec<String>,
    all_variables: bool,
    /// Whether more was read outside the project than a trace holds.
    #[serde(default)]
    pub(crate) incomplete: bool,
    /// Whether other programs were started, of which nothing is known.
    #[serde(default)]
    pub(crate) started_process: bool,
    /// The variables that the project's own code read, and not a library; `*` for all of them.
    #[serde(default)]
    pub(crate) read_by_project: Vec<String>,
    /// Whether the project's code may have asked for local time; an older trace does not tell.
    #[serde(default = "yes")]
    time_zone_matters: bool,
    /// Whether the answer depends on the start time that the run was given.
    #[serde(default)]
    pub(crate) start_time_matters: bool,
}

fn yes() -> bool {
    true
}

/// Stands for the user's own folder in paths outside the project, which is elsewhere on
/// another machine.
const HOME: &str = "~/";

impl Trace {
    /// Names what lies in the folder `home` so that another machine finds its own.
    #[must_use]
    pub(crate) fn relative_to_home(mut self, home: Option<&str>) -> Self {
        let Some(home) = home.map(|home| format!("{}/", home.trim_end_matches('/'))) else {
            return self;
        };
        for paths in [&mut self.files, &mut self.directories, &mut self.looked_up] {
            for path in paths.iter_mut() {
                if let Some(rest) = path.strip_prefix(&home).filter(|rest| !rest.is_empty()) {
                    *path = format!("{HOME}{rest}");
                }
            }
        }
        self
    }

    /// The files that were opened.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }
}

/// The values of what a run read. Those of variables are digests: they may be secrets.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Inputs {
    files: BTreeMap<String, Option<ObjectDigest>>,
    directories: BTreeMap<String, Option<ObjectDigest>>,
    looked_up: BTreeMap<String, &'static str>,
    variables: BTreeMap<String, ObjectDigest>,
    time_zone: Option<String>,
    start_time: Option<jiff::civil::DateTime>,
}

impl Inputs {
    /// Each input by a name that people understand, with what tells two values of it apart.
    pub(crate) fn named(&self) -> BTreeMap<String, String> {
        let digest = |digest: &Option<ObjectDigest>| match digest {
            Some(digest) => digest.to_string(),
            None => "absent".to_owned(),
        };
        let files = self.files.iter();
        let files = files.map(|(path, value)| (format!("file {path}"), digest(value)));
        let folders = self.directories.iter();
        let folders = folders.map(|(path, value)| (format!("the names in {path}"), digest(value)));
        let looked_up = self.looked_up.iter();
        let looked_up =
            looked_up.map(|(path, kind)| (format!("whether {path} is there"), (*kind).to_owned()));
        let variables = self.variables.iter();
        let variables =
            variables.map(|(name, value)| (format!("variable {name}"), value.to_string()));
        let zone = self.time_zone.iter();
        let zone = zone.map(|zone| ("the time zone".to_owned(), zone.clone()));
        let start = self.start_time.iter();
        let start = start.map(|time| ("the start time".to_owned(), time.to_string()));
        let all = files.chain(folders).chain(looked_up);
        all.chain(variables).chain(zone).chain(start).collect()
    }
}

/// Where the values are looked up.
pub(crate) struct World<'a> {
    pub(crate) directory: &'a Path,
    /// The project's files as they were scanned. `None`: every file is read.
    pub(crate) tree: Option<&'a Tree>,
    /// The variables that the probe's process has.
    pub(crate) variables: &'a BTreeMap<String, String>,
    /// What the run was given as its start time, if anything.
    pub(crate) start_time: Option<jiff::civil::DateTime>,
}

impl World<'_> {
    pub(crate) fn observe(&self, trace: &Trace) -> Inputs {
        Inputs {
            files: each(&trace.files, |path| self.file(path)),
            directories: each(&trace.directories, |path| self.listing(path)),
            looked_up: each(&trace.looked_up, |path| self.kind(path)),
            variables: self.traced_variables(trace),
            time_zone: self
                .variables
                .get("TZ")
                .filter(|_| trace.time_zone_matters || trace.start_time_matters)
                .cloned(),
            start_time: self.start_time.filter(|_| trace.start_time_matters),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        match (path.strip_prefix(HOME), self.variables.get("HOME")) {
            (Some(rest), Some(home)) => Path::new(home).join(rest),
            _ => self.directory.join(path),
        }
    }

    fn file(&self, path: &str) -> Option<ObjectDigest> {
        if let Some(entry) = self.tree.and_then(|tree| tree.get(path))
            && let TreeEntryKind::File { digest, .. } = &entry.kind
        {
            return Some(*digest);
        }
        digest_of_file(&self.path(path)).ok()
    }

    fn listing(&self, path: &str) -> Option<ObjectDigest> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(path))
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .filter(|name| !BUILT.contains(&name.as_str()) && !name.ends_with(".egg-info"))
            .collect();
        names.sort();
        Some(ObjectDigest::of(names.join("\0").as_bytes()))
    }

    fn kind(&self, path: &str) -> &'static str {
        match std::fs::metadata(self.path(path)) {
            Ok(metadata) if metadata.is_dir() => "directory",
            Ok(_) => "file",
            Err(_) => "absent",
        }
    }

    fn traced_variables(&self, trace: &Trace) -> BTreeMap<String, ObjectDigest> {
        let counts = |name: &str| {
            if trace.all_variables {
                return !NOISE.contains(&name);
            }
            // What a library looks for in there counts by itself.
            let only_a_place =
                name == "HOME" && !trace.read_by_project.iter().any(|read| read == name);
            trace.variables.iter().any(|traced| traced == name) && !only_a_place
                || trace.prefixes.iter().any(|prefix| name.starts_with(prefix))
        };
        self.variables
            .iter()
            .filter(|(name, _)| counts(name))
            .map(|(name, value)| {
                // With the name before it, equal secrets of two names do not look alike.
                let digest = ObjectDigest::of(format!("{name}={value}").as_bytes());
                (name.clone(), digest)
            })
            .collect()
    }
}

/// Files outside the project may be large, or no regular files at all.
fn digest_of_file(path: &Path) -> io::Result<ObjectDigest> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut file = std::fs::File::open(path)?;
    let mut digesting = Digesting::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(digesting.finish().0);
        }
        digesting.update(buffer.get(..length).unwrap_or_default());
    }
}

fn each<T>(names: &[String], value: impl Fn(&str) -> T) -> BTreeMap<String, T> {
    names
        .iter()
        .map(|name| (name.clone(), value(name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(trace: &Trace, directory: &Path, variables: &[(&str, &str)]) -> Inputs {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        World {
            directory,
            tree: None,
            variables: &variables,
            start_time: None,
        }
        .observe(trace)
    }

    #[test]
    fn exactly_the_variables_that_were_read_count_and_their_values_are_not_kept() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let trace = Trace {
            variables: names(&["READ", "ABSENT"]),
            prefixes: names(&["bf_"]),
            time_zone_matters: true,
            ..Trace::default()
        };
        let place = Path::new("/");
        let before = observe(
            &trace,
            place,
            &[("READ", "hunter2"), ("OTHER", "1"), ("bf_a", "1")],
        );
        assert!(!format!("{before:?}").contains("hunter2"));
        assert_eq!(
            observe(
                &trace,
                place,
                &[("READ", "hunter2"), ("OTHER", "2"), ("bf_a", "1")]
            ),
            before
        );
        for variables in [
            [("READ", "changed"), ("OTHER", "1"), ("bf_a", "1")].as_slice(),
            &[("READ", "hunter2"), ("bf_a", "1"), ("bf_b", "new")],
            &[("READ", "hunter2"), ("bf_a", "1"), ("ABSENT", "")],
            &[("READ", "hunter2"), ("bf_a", "1"), ("TZ", "UTC")],
        ] {
            assert_ne!(observe(&trace, place, variables), before, "{variables:?}");
        }
        let all = Trace {
            all_variables: true,
            ..trace
        };
        let before = observe(&all, place, &[("OTHER", "1"), ("SHLVL", "1")]);
        assert_eq!(
            observe(&all, place, &[("OTHER", "1"), ("SHLVL", "2")]),
            before
        );
        assert_ne!(
            observe(&all, place, &[("OTHER", "2"), ("SHLVL", "1")]),
            before
        );
    }

    #[test]
    fn where_the_home_is_and_which_time_zone_counts_only_if_the_project_looked() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [here, there] = homes.each_ref().map(|home| home.path().to_str().unwrap());
        let trace = Trace {
            looked_up: vec![format!("{here}/.config/library"), "/etc/library".to_owned()],
            variables: names(&["HOME"]),
            ..Trace::default()
        };
        let trace = trace.relative_to_home(Some(here));
        assert_eq!(trace.looked_up[0], "~/.config/library");
        let place = Path::new("/");
        let before = observe(&trace, place, &[("HOME", here), ("TZ", "UTC")]);
        let elsewhere = [("HOME", there), ("TZ", "Asia/Tokyo")];
        assert_eq!(observe(&trace, place, &elsewhere), before);

        std::fs::create_dir_all(homes[1].path().join(".config/library")).unwrap();
        assert_ne!(observe(&trace, place, &elsewhere), before);
        let trace = Trace {
            read_by_project: names(&["HOME"]),
            looked_up: Vec::new(),
            ..trace
        };
        assert_ne!(
            observe(&trace, place, &[("HOME", here)]),
            observe(&trace, place, &[("HOME", there)])
        );
    }

    #[test]
    fn a_listed_folder_counts_by_its_names_but_not_by_what_a_build_leaves() {
        let directory = tempfile::tempdir().unwrap();
        let trace = Trace {
            directories: vec![".".to_owned()],
            ..Trace::default()
        };
        let before = observe(&trace, directory.path(), &[]);
        std::fs::create_dir(directory.path().join(".dags")).unwrap();
        assert_eq!(observe(&trace, directory.path(), &[]), before);
        std::fs::write(directory.path().join("config.yaml"), "").unwrap();
        assert_ne!(observe(&trace, directory.path(), &[]), before);
    }
}
