//! Tests that have passed are not run again with the same sources and the same Python.
//!
//! What they read elsewhere (files outside of the project, other machines) is not known and does
//! not count, nor does what they leave behind. A result is kept for this machine alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forebay_store::{ObjectDigest, Recipe, Store, StoreError, Tree};
use serde::{Deserialize, Serialize};

use super::DevelopError;
use super::tests_of_project::REPORT;
use crate::project::{TestFramework, process_variables};
use crate::python::{Interpreter, recall, remember};

/// Raise it when an equal result means something else.
const RECIPE_VERSION: u32 = 1;

/// What tests and their tools leave in a project's folder.
const LEFT_BEHIND: [&str; 6] = [
    ".coverage",
    ".hypothesis",
    ".nox",
    "coverage.xml",
    "htmlcov",
    "junit.xml",
];

/// Everything that decides whether tests pass.
#[derive(Clone, Copy)]
pub struct TestInputs<'a> {
    /// The project's folder, absolute.
    pub directory: &'a Path,
    /// What runs them.
    pub framework: TestFramework,
    /// The project's files.
    pub tree: &'a Tree,
    /// The Python.
    pub interpreter: &'a Interpreter,
    /// The wheels that it imports from besides what is installed.
    pub wheels: Option<ObjectDigest>,
}

/// Tests that have passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedTests {
    /// How many.
    pub number: usize,
    /// The folder of their report.
    pub report: PathBuf,
}

/// What is remembered.
#[derive(Serialize, Deserialize)]
struct Document {
    tests: usize,
    /// The report's files by their names.
    files: BTreeMap<String, ObjectDigest>,
}

impl TestInputs<'_> {
    fn recipe(&self) -> Result<Recipe, StoreError> {
        #[derive(Serialize)]
        struct Inputs<'a> {
            framework: &'static str,
            sources: ObjectDigest,
            interpreter: &'a Interpreter,
            directory: &'a Path,
            wheels: Option<ObjectDigest>,
            variables: BTreeMap<String, ObjectDigest>,
        }
        let entries = self.tree.entries.iter().filter(|entry| {
            let parts = entry.path.split('/');
            !parts.into_iter().any(|part| LEFT_BEHIND.contains(&part))
        });
        let sources = Tree {
            entries: entries.cloned().collect(),
            read_again: 0,
        };
        // What BigFlow's and Python's own variables say; they may be secrets.
        let counts = |name: &str| name.starts_with("bf_") || name.starts_with("PYTHON");
        let variables = process_variables().into_iter();
        let inputs = Inputs {
            framework: match self.framework {
                TestFramework::Unittest => "unittest",
                TestFramework::Pytest => "pytest",
            },
            sources: sources.digest(),
            interpreter: self.interpreter,
            directory: self.directory,
            wheels: self.wheels,
            variables: variables
                .filter(|(name, _)| counts(name))
                .map(|(name, value)| {
                    let digest = ObjectDigest::of(format!("{name}={value}").as_bytes());
                    (name, digest)
                })
                .collect(),
        };
        Recipe::new("tests", RECIPE_VERSION, &inputs)
    }

    /// The result of an earlier run with the same inputs; its report is put back where it was.
    ///
    /// # Errors
    /// The report cannot be written, or the store fails.
    pub fn passed_before(&self, store: &Store) -> Result<Option<PassedTests>, DevelopError> {
        let Some(document) = recall::<Document>(store, &self.recipe()?)? else {
            return Ok(None);
        };
        let mut files = BTreeMap::new();
        for (name, digest) in document.files {
            // Bytes that were lost since are made again.
            let Ok(bytes) = store.read(&digest) else {
                return Ok(None);
            };
            files.insert(name, bytes);
        }
        let report = self.directory.join(REPORT);
        put_back(&report, &files).map_err(|source| DevelopError::File {
            action: "write",
            path: report.clone(),
            source,
        })?;
        Ok(Some(PassedTests {
            number: document.tests,
            report,
        }))
    }

    /// Gathers what a run that passed has left in `report`. It is remembered, unless the
    /// project's files, now `after`, have changed meanwhile; then one of them is named.
    ///
    /// # Errors
    /// The report cannot be read, or the store fails.
    pub fn passed(
        &self,
        report: PathBuf,
        after: &Tree,
        store: &Store,
    ) -> Result<(PassedTests, Option<String>), DevelopError> {
        let files = read_report(&report).map_err(|source| DevelopError::File {
            action: "read",
            path: report.clone(),
            source,
        })?;
        let number = files.values().map(|bytes| count_tests(bytes)).sum();
        let passed = PassedTests { number, report };
        let recipe = self.recipe()?;
        let inputs_after = TestInputs {
            tree: after,
            ..*self
        };
        if inputs_after.recipe()?.key() != recipe.key() {
            let changed = difference(self.tree, after).unwrap_or_default();
            return Ok((passed, Some(changed)));
        }
        let mut batch = store.begin()?;
        let mut digests = BTreeMap::new();
        for (name, bytes) in &files {
            digests.insert(name.clone(), batch.put(bytes)?.digest);
        }
        let document = Document {
            tests: number,
            files: digests,
        };
        remember(&mut batch, &recipe, &document)?;
        batch.commit()?;
        Ok((passed, None))
    }
}

/// The first path at which two trees are different.
fn difference(before: &Tree, after: &Tree) -> Option<String> {
    let is_left_behind = |path: &str| path.split('/').any(|part| LEFT_BEHIND.contains(&part));
    let both = before.entries.iter().chain(&after.entries);
    both.map(|entry| entry.path.as_str())
        .filter(|path| !is_left_behind(path))
        .find(|path| before.get(path) != after.get(path))
        .map(str::to_owned)
}

fn read_report(report: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(report)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(files)
}

/// Nothing is written if it is there.
fn put_back(report: &Path, files: &BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    if read_report(report).is_ok_and(|there| there == *files) {
        return Ok(());
    }
    if report.exists() {
        std::fs::remove_dir_all(report)?;
    }
    std::fs::create_dir_all(report)?;
    for (name, bytes) in files {
        std::fs::write(report.join(name), bytes)?;
    }
    Ok(())
}

/// The `testcase` elements of a JUnit XML document.
fn count_tests(bytes: &[u8]) -> usize {
    use quick_xml::events::Event;
    let mut reader = quick_xml::Reader::from_reader(bytes);
    let mut number = 0;
    loop {
        match reader.read_event() {
            Ok(Event::Start(element) | Event::Empty(element))
                if element.local_name().as_ref() == b"testcase" =>
            {
                number += 1;
            }
            Ok(Event::Eof) | Err(_) => return number,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::PythonVersion;

    fn interpreter() -> Interpreter {
        Interpreter {
            executable: "/usr/bin/python3".into(),
            version: PythonVersion {
                major: 3,
                minor: 11,
                micro: 2,
            },
            platform: "linux-x86_64".to_owned(),
            bigflow: Some("1.11.3".to_owned()),
            installed: Vec::new(),
        }
    }

    fn inputs<'a>(
        directory: &'a Path,
        interpreter: &'a Interpreter,
        tree: &'a Tree,
    ) -> TestInputs<'a> {
        TestInputs {
            directory,
            framework: TestFramework::Unittest,
            tree,
            interpreter,
            wheels: None,
        }
    }

    #[test]
    fn a_result_is_kept_until_a_source_changes_and_its_report_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (project, report) = (
            folder.path().join("p"),
            folder.path().join("p").join(REPORT),
        );
        std::fs::create_dir_all(&report).unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let scan = || store.scan(&project, &|path, _| path == "build").unwrap();
        let write = |name: &str, text: &str| std::fs::write(project.join(name), text).unwrap();
        let xml = "<testsuites><testsuite><testcase name='a'/><testcase name='b'>x</testcase></testsuite></testsuites>";
        write("test_a.py", "");
        write("build/junit-reports/a.xml", xml);
        let interpreter = interpreter();
        let before = scan();
        assert_eq!(
            inputs(&project, &interpreter, &before)
                .passed_before(&store)
                .unwrap(),
            None
        );

        // A source that changed while they ran: nobody knows what has passed.
        write("other.py", "");
        let (_, changed) = inputs(&project, &interpreter, &before)
            .passed(report.clone(), &scan(), &store)
            .unwrap();
        assert_eq!(changed.as_deref(), Some("other.py"));
        assert_eq!(
            inputs(&project, &interpreter, &scan())
                .passed_before(&store)
                .unwrap(),
            None
        );

        let before = scan();
        write(".coverage", "left behind");
        let (passed, changed) = inputs(&project, &interpreter, &before)
            .passed(report.clone(), &scan(), &store)
            .unwrap();
        assert_eq!((passed.number, changed), (2, None));
        std::fs::remove_dir_all(project.join("build")).unwrap();
        let again = inputs(&project, &interpreter, &scan())
            .passed_before(&store)
            .unwrap();
        assert_eq!(again, Some(passed));
        assert_eq!(std::fs::read_to_string(report.join("a.xml")).unwrap(), xml);

        write("test_a.py", "import this");
        assert_eq!(
            inputs(&project, &interpreter, &scan())
                .passed_before(&store)
                .unwrap(),
            None
        );
    }
}
