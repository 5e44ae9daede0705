//! Which modules are searched for workflows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A module of a root package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Module {
    /// Its dotted name.
    pub(super) name: String,
    /// The root package that it lies in.
    pub(super) package: String,
    /// Its file, relative to the project's directory, with `/`.
    pub(super) file: String,
}

/// Every `.py` file below the root packages, as BigFlow's `walk_module_paths` finds
/// them, but sorted, so that the order of import does not depend on the disk. Hidden
/// folders and files, which no import statement can name, are left out.
pub(super) fn find_modules<'a>(
    directory: &Path,
    root_packages: impl Iterator<Item = &'a str>,
) -> Result<Vec<Module>, (PathBuf, std::io::Error)> {
    let mut modules = BTreeMap::new();
    for package in root_packages {
        let root = directory.join(package);
        let visible = |entry: &walkdir::DirEntry| {
            let name = entry.file_name().to_string_lossy();
            !name.starts_with('.') && name != "__pycache__"
        };
        for entry in walkdir::WalkDir::new(&root)
            .into_iter()
            .filter_entry(visible)
        {
            let entry = entry.map_err(|error| {
                let path = error.path().unwrap_or(&root).to_owned();
                (path, error.into())
            })?;
            let path = entry.path();
            let Some(file) = path.strip_prefix(directory).ok().and_then(Path::to_str) else {
                continue;
            };
            let Some(stem) = file.strip_suffix(".py") else {
                continue;
            };
            // A link is a module too, if it leads to a file.
            let kind = entry.file_type();
            let is_file = kind.is_file() || (kind.is_symlink() && path.is_file());
            if !is_file {
                continue;
            }
            let name = stem
                .strip_suffix("/__init__")
                .unwrap_or(stem)
                .replace('/', ".");
            modules.entry(name.clone()).or_insert_with(|| Module {
                name,
                package: package.to_owned(),
                file: file.to_owned(),
            });
        }
    }
    Ok(modules.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_sorted_and_named_as_imports_name_them() {
        let directory = tempfile::tempdir().unwrap();
        for file in [
            "b/__init__.py",
            "b/z.py",
            "b/a/__init__.py",
            "b/a/c.py",
            "b/.x/d.py",
            "b/data.txt",
            "other/e.py",
            "b/plain/f.py",
        ] {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let modules = find_modules(directory.path(), ["b"].into_iter()).unwrap();
        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["b", "b.a", "b.a.c", "b.plain.f", "b.z"]);
        assert_eq!(modules[1].file, "b/a/__init__.py");
        assert_eq!(modules[1].package, "b");
    }
}
