//! Which files a project's wheel consists of: what BigFlow's `build-package`
//! (setuptools with BigFlow's `data_files`) would put into it, found without
//! starting Python.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use super::ImageError;
use super::context::{BuildContext, ContextFile};
use super::glob;

/// What a project says about itself, as far as its wheel says it too.
#[derive(Debug, Clone, Copy)]
pub struct ProjectSource<'a> {
    /// The distribution's name.
    pub name: &'a str,
    /// The version, if it is content: a clean release tag's, or one that
    /// `setup()` is given. Otherwise one is derived from the files.
    pub version: Option<&'a str>,
    /// Dotted names of the packages.
    pub packages: &'a [String],
    /// Relative to the project's directory.
    pub resources_directory: &'a str,
    /// Relative to the project's directory.
    pub requirements_file: &'a str,
    /// Requirements that replace those of the file.
    pub requires: Option<&'a [String]>,
    /// Relative to the project's directory.
    pub deployment_config_file: &'a str,
    /// The repository, as `setup()` or the default environment says. It becomes content.
    pub docker_repository: Option<&'a str>,
    /// `unittest` or `pytest`.
    pub test_framework: &'a str,
    /// BigFlow's `export_image_tar`.
    pub export_image_tar: bool,
    /// Target folders and files, relative to `sys.prefix` and the project's directory.
    pub data_files: &'a [(String, Vec<String>)],
    /// `author`, `url`, `description` and the other metadata of a distribution.
    pub metadata: &'a BTreeMap<String, Value>,
    /// Every other argument of `setup()`.
    pub setuptools: &'a BTreeMap<String, Value>,
}

/// Arguments of `setup()` that decide what is in a wheel in ways that only
/// setuptools knows, with what to do instead.
const NOT_KNOWN: [(&str, &str); 4] = [
    ("package_dir", "move the packages into the project's folder"),
    (
        "ext_modules",
        "put what must be compiled into a distribution of its own",
    ),
    (
        "cmdclass",
        "put what the command builds into a distribution of its own",
    ),
    ("include_package_data", "list the files in package_data"),
];

/// The files of a project's wheel and of the source archive within it.
#[derive(Debug, Default)]
pub(super) struct ProjectFiles {
    /// Below site-packages.
    pub(super) modules: BTreeMap<String, ContextFile>,
    /// Below `sys.prefix`.
    pub(super) data: BTreeMap<String, ContextFile>,
    /// Programs, by file name.
    pub(super) scripts: BTreeMap<String, ContextFile>,
    /// Console and gui scripts: group, name, `module:function`.
    pub(super) entry_points: Vec<(String, String, String)>,
    /// The source archive, below its one directory.
    pub(super) sources: BTreeMap<String, ContextFile>,
    /// The names for `top_level.txt`.
    pub(super) top_level: BTreeSet<String>,
    /// Requirements of the wheel; `None` if there is no requirements file.
    pub(super) requires: Option<Vec<String>>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

fn refused<T>(problem: impl Into<String>) -> Result<T, ImageError> {
    Err(ImageError::Project {
        problem: problem.into(),
    })
}

fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(text)) => vec![text],
        _ => Vec::new(),
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl ProjectFiles {
    /// Finds the files of `source` in `context`.
    pub(super) fn collect(
        source: &ProjectSource<'_>,
        context: &BuildContext<'_>,
    ) -> Result<Self, ImageError> {
        for (key, instead) in NOT_KNOWN {
            let is_used = match source.setuptools.get(key) {
                None | Some(Value::Null | Value::Bool(false)) => false,
                // Without MANIFEST.in this argument includes nothing.
                Some(_) => {
                    key != "include_package_data" || context.tree.get("MANIFEST.in").is_some()
                }
            };
            if is_used {
                return refused(format!("setup({key}=…) is not known here: {instead}"));
            }
        }
        let mut files = Self::default();
        files.modules(source, context)?;
        files.data(source, context)?;
        files.scripts(source, context)?;
        files.requirements(source, context)?;
        files.sources(source, context)?;
        Ok(files)
    }

    fn modules(
        &mut self,
        source: &ProjectSource<'_>,
        context: &BuildContext<'_>,
    ) -> Result<(), ImageError> {
        let package_data = match source.setuptools.get("package_data") {
            Some(Value::Object(patterns)) => Some(patterns),
            _ => None,
        };
        for package in source.packages {
            let directory = package.replace('.', "/");
            let patterns: Vec<&str> = [package.as_str(), "", "*"]
                .iter()
                .filter_map(|key| package_data.and_then(|patterns| patterns.get(*key)))
                .flat_map(|patterns| texts(Some(patterns)))
                .collect();
            for (path, rest) in context.below(&directory) {
                let is_module = !rest.contains('/') && rest.ends_with(".py");
                if is_module || patterns.iter().any(|pattern| glob::matches(pattern, rest)) {
                    self.modules.insert(path.to_owned(), context.file(path)?);
                }
            }
            self.top_level
                .insert(package.split('.').next().unwrap_or_default().to_owned());
        }
        for module in texts(source.setuptools.get("py_modules")) {
            let path = format!("{}.py", module.replace('.', "/"));
            self.modules.insert(path.clone(), context.file(&path)?);
            self.top_level
                .insert(module.split('.').next().unwrap_or_default().to_owned());
        }
        Ok(())
    }

    fn data(
        &mut self,
        source: &ProjectSource<'_>,
        context: &BuildContext<'_>,
    ) -> Result<(), ImageError> {
        // setuptools copies every data file into its target folder itself: BigFlow's
        // `resources/sub/x.sql` is installed as `resources/x.sql`. Of two with one name the
        // one nearer the top is taken, where setuptools takes the newer.
        let mut resources: Vec<&str> = context
            .below(source.resources_directory)
            .map(|(path, _)| path)
            .collect();
        resources.sort_by_key(|path| (path.matches('/').count(), *path));
        let own: Vec<(&str, &str)> = resources.into_iter().map(|p| ("resources", p)).collect();
        let further = source
            .data_files
            .iter()
            .flat_map(|(target, files)| files.iter().map(|f| (target.as_str(), f.as_str())));
        for (target, path) in own.into_iter().chain(further) {
            let target = super::run::resolve_path("", target);
            let to = super::run::resolve_path("", &format!("{target}/{}", file_name(path)));
            let file = context.file(&super::run::resolve_path("", path))?;
            match self.data.get(&to) {
                None => {
                    self.data.insert(to, file);
                }
                Some(other) if other.path != file.path => self.warnings.push(format!(
                    "{path} is left out: it would be installed as {to}, where {} already is",
                    other.path
                )),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn scripts(
        &mut self,
        source: &ProjectSource<'_>,
        context: &BuildContext<'_>,
    ) -> Result<(), ImageError> {
        for path in texts(source.setuptools.get("scripts")) {
            self.scripts
                .insert(file_name(path).to_owned(), context.file(path)?);
        }
        match source.setuptools.get("entry_points") {
            None | Some(Value::Null) => {}
            Some(Value::Object(groups)) => {
                for (group, points) in groups {
                    for point in texts(Some(points)) {
                        let Some((name, value)) = point.split_once('=') else {
                            return refused(format!(
                                "the entry point {point:?} is not NAME = VALUE"
                            ));
                        };
                        self.entry_points.push((
                            group.clone(),
                            name.trim().to_owned(),
                            value.trim().to_owned(),
                        ));
                    }
                }
                self.entry_points.sort();
            }
            Some(_) => return refused("setup(entry_points=…) is not a dictionary of lists"),
        }
        Ok(())
    }

    /// The requirements as BigFlow's `read_requirements` reads them.
    fn requirements(
        &mut self,
        source: &ProjectSource<'_>,
        context: &BuildContext<'_>,
    ) -> Result<(), ImageError> {
        if let Some(requires) = source.requires {
            self.requires = Some(requires.to_vec());
        } else if context.tree.get(source.requirements_file).is_some() {
            let path: PathBuf = context.directory.join(source.requirements_file);
            let read = crate::wheels::Requirements::read(&[path])?;
            let without_hashes = |line: &String| {
                let requirement = line.split(" --").next().unwrap_or_default();
                requirement.trim().to_owned()
            };
            self.requires = Some(read.requirements.iter().map(without_hashes).collect());
        }
        Ok(())
    }

    /// What BigFlow's `sdist` takes: the wheel's files, and those beside `setup.py`.
    fn sources(
        &mut self,
        source: &ProjectSource<'_>,
        context: &BuildContext<'_>,
    ) -> Result<(), ImageError> {
        let wheel_files: Vec<ContextFile> = [&self.modules, &self.scripts]
            .into_iter()
            .flat_map(|files| files.values().cloned())
            .collect();
        for file in wheel_files {
            self.sources.insert(file.path.clone(), file);
        }
        let beside = [
            "setup.py",
            "setup.cfg",
            "project_setup.py",
            "deployment_config.py",
            source.deployment_config_file,
            "requirements.in",
            "requirements.txt",
            "Dockerfile",
            "README",
            "README.txt",
            "README.rst",
            source.requirements_file,
        ];
        for path in beside {
            if context.tree.get(path).is_some() {
                self.sources.insert(path.to_owned(), context.file(path)?);
            }
        }
        let resources = context.below(source.resources_directory).map(|(p, _)| p);
        let data = source.data_files.iter().flat_map(|(_, files)| files);
        let tests = context
            .below("test")
            .filter(|(_, rest)| glob::matches("test*.py", rest))
            .map(|(path, _)| path);
        let all: Vec<&str> = resources
            .chain(data.map(String::as_str))
            .chain(tests)
            .collect();
        for path in all {
            let path = super::run::resolve_path("", path);
            let file = context.file(&path)?;
            self.sources.insert(path, file);
        }
        Ok(())
    }
}
