//! A project's specification: `setup.py` and `[bigflow-project]` of
//! `pyproject.toml`, with the defaults of BigFlow's `parse_project_spec`.

use std::collections::BTreeMap;
use std::path::Path;

use forebay_store::Store;

use super::ProjectError;
use super::load::{FindInterpreter, load_setup};
use super::names::ProjectName;
use super::packages::find_packages;
use super::settings::Settings;
use super::value::{PropertyValue, set_item};

/// The keys of `distutils`' metadata (BigFlow, `build/spec.py`).
const METADATA_KEYS: [&str; 18] = [
    "author",
    "author_email",
    "maintainer",
    "maintainer_email",
    "url",
    "license",
    "description",
    "long_description",
    "keywords",
    "platforms",
    "fullname",
    "contact",
    "contact_email",
    "classifiers",
    "download_url",
    "provides",
    "requires",
    "obsoletes",
];

/// What `build-package` runs the project's tests with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TestFramework {
    /// `unittest`, BigFlow's default.
    #[default]
    Unittest,
    /// `pytest`.
    Pytest,
}

/// What a BigFlow project says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectSpec {
    /// The name, with `-` for `_`.
    pub name: ProjectName,
    /// Dotted names, sorted. Those without a dot are the root packages.
    pub packages: Vec<String>,
    /// Relative to the project's directory; `resources` by default.
    pub resources_directory: String,
    /// Relative to the project's directory; `deployment_config.py` by default.
    pub deployment_config_file: String,
    /// Relative to the project's directory; `resources/requirements.txt` by default.
    pub requirements_file: String,
    /// A version that is written down; otherwise git gives it.
    pub version: Option<String>,
    /// A repository that is written down; otherwise `deployment_config.py` gives it.
    pub docker_repository: Option<String>,
    /// `requries` (BigFlow's spelling): requirements that replace those of the file.
    pub requires: Option<Vec<String>>,
    /// `data_files`: target folders with their files.
    pub data_files: Vec<(String, Vec<String>)>,
    /// What runs the tests.
    pub test_framework: TestFramework,
    /// Whether `build-image` writes a tar file.
    pub export_image_tar: bool,
    /// `author`, `url`, `description` and the other metadata of a distribution.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// Every other argument: BigFlow hands it to `setuptools`.
    pub setuptools: BTreeMap<String, serde_json::Value>,
    /// What was accepted although it is wrong.
    pub warnings: Vec<String>,
}

impl ProjectSpec {
    /// The packages at the top: their modules are searched for workflows.
    pub fn root_packages(&self) -> impl Iterator<Item = &str> {
        self.packages
            .iter()
            .map(String::as_str)
            .filter(|package| !package.contains('.'))
    }
}

/// `pyproject.toml`, as far as it concerns us.
#[derive(Debug, Default)]
pub(super) struct PyProject {
    /// `[bigflow-project]`.
    parameters: Vec<(String, PropertyValue)>,
    /// `[tool.forebay]`.
    pub(super) settings: Settings,
}

#[derive(serde::Deserialize)]
struct PyProjectTables {
    #[serde(rename = "bigflow-project", default)]
    project: toml::Table,
    #[serde(default)]
    tool: Tools,
}

#[derive(Default, serde::Deserialize)]
struct Tools {
    #[serde(default)]
    forebay: Settings,
}

/// Reads `pyproject.toml`, if there is one.
pub(super) fn read_pyproject(directory: &Path) -> Result<PyProject, ProjectError> {
    let path = directory.join("pyproject.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(PyProject::default());
        }
        Err(source) => return Err(ProjectError::Read { path, source }),
    };
    let tables: PyProjectTables = toml::from_str(&text).map_err(|source| ProjectError::Toml {
        path,
        message: source.to_string().trim_end().to_owned(),
    })?;
    Ok(PyProject {
        parameters: tables
            .project
            .into_iter()
            .map(|(key, value)| (key, from_toml(value)))
            .collect(),
        settings: tables.tool.forebay,
    })
}

fn from_toml(value: toml::Value) -> PropertyValue {
    match value {
        toml::Value::String(text) => PropertyValue::Str(text),
        toml::Value::Integer(value) => PropertyValue::Int(value),
        toml::Value::Float(value) => PropertyValue::Float(value),
        toml::Value::Boolean(value) => PropertyValue::Bool(value),
        toml::Value::Datetime(_) => PropertyValue::Other("datetime".to_owned()),
        toml::Value::Array(items) => {
            PropertyValue::List(items.into_iter().map(from_toml).collect())
        }
        toml::Value::Table(items) => PropertyValue::Dict(
            items
                .into_iter()
                .map(|(key, value)| (key, from_toml(value)))
                .collect(),
        ),
    }
}

/// Reads the specification of the project in `directory`.
pub(super) fn read_spec(
    directory: &Path,
    pyproject: PyProject,
    interpreter: FindInterpreter<'_>,
    store: Option<&Store>,
) -> Result<ProjectSpec, ProjectError> {
    let mut parameters = pyproject.parameters;
    // `project_setup.py` is BigFlow 1.0's name for it.
    let setup = ["setup.py", "project_setup.py"]
        .into_iter()
        .map(|name| directory.join(name))
        .find(|path| path.exists());
    if let Some(path) = setup {
        for (key, value) in load_setup(&path, interpreter, store)? {
            set_item(&mut parameters, key, value);
        }
    }
    Parameters {
        directory,
        items: parameters,
    }
    .into_spec()
}

/// The arguments of `parse_project_spec`.
struct Parameters<'a> {
    directory: &'a Path,
    items: Vec<(String, PropertyValue)>,
}

impl Parameters<'_> {
    fn into_spec(mut self) -> Result<ProjectSpec, ProjectError> {
        let mut warnings = Vec::new();
        let Some(name) = self.text("name")? else {
            return Err(ProjectError::NoName {
                directory: self.directory.to_owned(),
            });
        };
        let packages = match self.texts("packages")? {
            Some(mut packages) => {
                packages.sort();
                packages.dedup();
                packages
            }
            None => find_packages(self.directory)?,
        };
        let test_framework = match self.text("test_framework")?.as_deref() {
            None | Some("unittest") => TestFramework::Unittest,
            Some("pytest") => TestFramework::Pytest,
            Some(other) => {
                warnings.push(format!(
                    "the test framework {other:?} is not known: unittest is used, as BigFlow does"
                ));
                TestFramework::Unittest
            }
        };
        let export_image_tar = self
            .take("export_image_tar")
            .and_then(|value| value.truth());
        Ok(ProjectSpec {
            name: ProjectName::normalised(&name)?,
            packages,
            resources_directory: self.text_or("resources_dir", "resources")?,
            deployment_config_file: self
                .text_or("deployment_config_file", "deployment_config.py")?,
            requirements_file: self
                .text_or("project_requirements_file", "resources/requirements.txt")?,
            version: self.text("version")?.filter(|version| !version.is_empty()),
            docker_repository: self
                .text("docker_repository")?
                .filter(|repository| !repository.is_empty()),
            requires: self.texts("requries")?,
            data_files: self.data_files()?,
            test_framework,
            export_image_tar: export_image_tar.unwrap_or(true),
            metadata: METADATA_KEYS
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), self.take(key)?.to_json())))
                .collect(),
            setuptools: self
                .items
                .iter()
                .map(|(key, value)| (key.clone(), value.to_json()))
                .collect(),
            warnings,
        })
    }

    /// Takes a parameter out; `None` in Python counts as absent.
    fn take(&mut self, key: &str) -> Option<PropertyValue> {
        let place = self
            .items
            .iter()
            .position(|(existing, _)| existing == key)?;
        Some(self.items.remove(place).1).filter(|value| *value != PropertyValue::None)
    }

    fn wrong_type(key: &str, expected: &'static str, found: &PropertyValue) -> ProjectError {
        ProjectError::Parameter {
            key: key.to_owned(),
            expected,
            found: found.type_name().to_owned(),
        }
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, ProjectError> {
        match self.take(key) {
            None => Ok(None),
            Some(PropertyValue::Str(text)) => Ok(Some(text)),
            Some(other) => Err(Self::wrong_type(key, "a text", &other)),
        }
    }

    fn text_or(&mut self, key: &str, default: &str) -> Result<String, ProjectError> {
        Ok(self.text(key)?.unwrap_or_else(|| default.to_owned()))
    }

    fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>, ProjectError> {
        self.take(key)
            .map(|value| list_of_texts(key, value))
            .transpose()
    }

    fn data_files(&mut self) -> Result<Vec<(String, Vec<String>)>, ProjectError> {
        const EXPECTED: &str = "a list of (folder, files)";
        let items = match self.take("data_files") {
            None => return Ok(Vec::new()),
            Some(PropertyValue::List(items)) => items,
            Some(other) => return Err(Self::wrong_type("data_files", EXPECTED, &other)),
        };
        items
            .into_iter()
            .map(|item| match item {
                PropertyValue::List(pair) => match <[PropertyValue; 2]>::try_from(pair) {
                    Ok([PropertyValue::Str(folder), files]) => {
                        Ok((folder, list_of_texts("data_files", files)?))
                    }
                    Ok([other, _]) => Err(Self::wrong_type("data_files", EXPECTED, &other)),
                    Err(pair) => Err(Self::wrong_type(
                        "data_files",
                        EXPECTED,
                        &PropertyValue::List(pair),
                    )),
                },
                other => Err(Self::wrong_type("data_files", EXPECTED, &other)),
            })
            .collect()
    }
}

fn list_of_texts(key: &str, value: PropertyValue) -> Result<Vec<String>, ProjectError> {
    let PropertyValue::List(items) = value else {
        return Err(Parameters::wrong_type(key, "a list of texts", &value));
    };
    items
        .into_iter()
        .map(|item| match item {
            PropertyValue::Str(text) => Ok(text),
            other => Err(Parameters::wrong_type(key, "a list of texts", &other)),
        })
        .collect()
}
