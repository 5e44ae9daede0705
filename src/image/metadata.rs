//! What a BigFlow project's wheel says about the project: METADATA, as
//! setuptools writes it, and the `pyproject.toml` that BigFlow reads at run time.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ImageError;
use super::project::ProjectSource;

/// METADATA's fields that have one value, with the names of `setup()`'s arguments, in
/// setuptools' order.
const FIELDS: [(&str, &str); 9] = [
    ("Summary", "description"),
    ("Home-page", "url"),
    ("Download-URL", "download_url"),
    ("Author", "author"),
    ("Author-email", "author_email"),
    ("Maintainer", "maintainer"),
    ("Maintainer-email", "maintainer_email"),
    ("License", "license"),
    ("Keywords", "keywords"),
];

fn one_line(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            items.join(",")
        }
        _ => return None,
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn several(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(one_line).collect(),
        Some(other) => one_line(other).into_iter().collect(),
        None => Vec::new(),
    }
}

/// A requirement as setuptools writes it: extras sorted, one blank after `;`.
fn normal_requirement(requirement: &str) -> String {
    let (requirement, marker) = match requirement.split_once(';') {
        Some((requirement, marker)) => (requirement.trim(), Some(marker.trim())),
        None => (requirement.trim(), None),
    };
    let mut normal = match (requirement.find('['), requirement.find(']')) {
        (Some(open), Some(close)) if open < close => {
            let (name, rest) = requirement.split_at(open);
            let (extras, version) = rest.split_at(close - open);
            let mut extras: Vec<&str> = extras
                .trim_start_matches('[')
                .split(',')
                .map(str::trim)
                .collect();
            extras.sort_unstable();
            let version = version.trim_start_matches(']').trim();
            format!("{}[{}]{version}", name.trim(), extras.join(","))
        }
        _ => requirement.to_owned(),
    };
    if let Some(marker) = marker {
        normal = format!("{normal}; {marker}");
    }
    crate::wheels::strip_credentials(&normal)
}

/// The text of METADATA (or, without requirements, of PKG-INFO).
pub(super) fn metadata(source: &ProjectSource<'_>, version: &str, requires: &[String]) -> String {
    let mut text = format!(
        "Metadata-Version: 2.1\nName: {}\nVersion: {version}\n",
        source.name
    );
    let mut field = |name: &str, value: &str| {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push('\n');
    };
    for (name, key) in FIELDS {
        if let Some(value) = source.metadata.get(key).and_then(one_line) {
            field(name, &value);
        }
    }
    for value in several(source.metadata.get("platforms")) {
        field("Platform", &value);
    }
    for value in several(source.metadata.get("classifiers")) {
        field("Classifier", &value);
    }
    for value in several(source.setuptools.get("python_requires")) {
        field("Requires-Python", &value);
    }
    for requirement in requires {
        field("Requires-Dist", &normal_requirement(requirement));
    }
    text.push('\n');
    if let Some(Value::String(description)) = source.metadata.get("long_description") {
        text.push_str(description);
        text.push('\n');
    }
    text
}

fn to_toml(value: &Value) -> Option<toml::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => toml::Value::Boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(value) => toml::Value::Integer(value),
            None => toml::Value::Float(number.as_f64()?),
        },
        Value::String(text) => toml::Value::String(text.clone()),
        Value::Array(items) => toml::Value::Array(items.iter().filter_map(to_toml).collect()),
        Value::Object(items) => toml::Value::Table(
            items
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), to_toml(value)?)))
                .collect(),
        ),
    })
}

/// The project's `pyproject.toml` (`existing`) with the whole specification in
/// `[bigflow-project]`, as BigFlow's `add_spec_to_pyproject_toml` leaves it.
///
/// # Errors
/// A file that is not TOML.
pub(super) fn pyproject(
    existing: &str,
    source: &ProjectSource<'_>,
    version: &str,
    requires: Option<&[String]>,
) -> Result<String, ImageError> {
    let refused = |problem: String| ImageError::Project {
        problem: format!("pyproject.toml: {problem}"),
    };
    let mut table: toml::Table = existing
        .parse()
        .map_err(|error: toml::de::Error| refused(error.message().to_owned()))?;
    let mut sorted_packages: Vec<&String> = source.packages.iter().collect();
    sorted_packages.sort();
    let specification = BTreeMap::from([
        ("name", Some(Value::from(source.name))),
        ("version", Some(Value::from(version))),
        (
            "packages",
            Some(Value::from_iter(sorted_packages.into_iter().cloned())),
        ),
        (
            "requries",
            requires.map(|r| Value::from_iter(r.iter().cloned())),
        ),
        (
            "docker_repository",
            source.docker_repository.map(Value::from),
        ),
        (
            "deployment_config_file",
            Some(Value::from(source.deployment_config_file)),
        ),
        (
            "project_requirements_file",
            Some(Value::from(source.requirements_file)),
        ),
        (
            "resources_dir",
            Some(Value::from(source.resources_directory)),
        ),
        ("test_framework", Some(Value::from(source.test_framework))),
        (
            "export_image_tar",
            Some(Value::from(source.export_image_tar)),
        ),
    ]);
    let project = table
        .entry("bigflow-project")
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let Some(project) = project.as_table_mut() else {
        return Err(refused("[bigflow-project] is not a table".to_owned()));
    };
    let own = specification
        .iter()
        .filter_map(|(key, value)| Some(((*key).to_owned(), to_toml(value.as_ref()?)?)));
    let further = source.metadata.iter().chain(source.setuptools);
    let further = further.filter_map(|(key, value)| Some((key.clone(), to_toml(value)?)));
    project.extend(own.chain(further));
    table.entry("build-system").or_insert_with(|| {
        toml::Value::Table(toml::Table::from_iter([
            (
                "requires".to_owned(),
                toml::Value::Array(vec![toml::Value::String("bigflow".to_owned())]),
            ),
            (
                "build-backend".to_owned(),
                toml::Value::String("bigflow.build.meta".to_owned()),
            ),
        ]))
    });
    toml::to_string(&table).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_written_as_setuptools_does() {
        for (text, expected) in [
            ("bigflow==1.11.3", "bigflow==1.11.3"),
            (
                "bigflow[log, bigquery]==1.11.3",
                "bigflow[bigquery,log]==1.11.3",
            ),
            (
                "toml>=0.10 ;python_version < \"4\"",
                "toml>=0.10; python_version < \"4\"",
            ),
            (
                "x @ https://u:secret@h.test/x.zip",
                "x @ https://h.test/x.zip",
            ),
        ] {
            assert_eq!(normal_requirement(text), expected);
        }
    }
}
