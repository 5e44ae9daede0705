//! Finds a project's packages as `setuptools.find_packages` does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::ProjectError;

/// Deeper folders than this are taken for a circle of symbolic links.
const DEEPEST: usize = 64;

/// `setuptools.find_packages(where=directory, exclude=["test", "test.*"])`, sorted.
pub fn find_packages(directory: &Path) -> Result<Vec<String>, ProjectError> {
    let mut found = BTreeSet::new();
    let mut folders: Vec<(PathBuf, String, usize)> = vec![(directory.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let failed = |source| ProjectError::Read {
            path: folder.clone(),
            source,
        };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let package = format!("{prefix}{name}");
            let path = entry.path();
            if name.contains('.') || package == "test" || !path.join("__init__.py").is_file() {
                continue;
            }
            if depth < DEEPEST {
                folders.push((path, format!("{package}."), depth + 1));
            }
            found.insert(package);
        }
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_package_and_folders_that_are_no_package_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        for folder in [
            "app",
            "app/jobs",
            "app/test",
            "app/data/deep",
            "test",
            "test/app",
            "a.b",
            "resources",
        ] {
            std::fs::create_dir_all(directory.path().join(folder)).unwrap();
        }
        for package in [
            "app",
            "app/jobs",
            "app/test",
            "app/data/deep",
            "test",
            "test/app",
            "a.b",
        ] {
            std::fs::write(directory.path().join(package).join("__init__.py"), "").unwrap();
        }
        assert_eq!(
            find_packages(directory.path()).unwrap(),
            ["app", "app.jobs", "app.test"]
        );
    }
}
