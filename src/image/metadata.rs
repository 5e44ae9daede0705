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

/// A version in the normal form that setuptools writes (PyPA specification
/// "Version specifiers"): `2.0-rc1` is `2.0rc1`. What is no version stays as it is.
pub(super) fn normal_version(text: &str) -> String {
    let lower = text.trim().to_lowercase();
    let (public, local) = match lower.split_once('+') {
        Some((public, local)) => (public, Some(local.replace(['-', '_'], "."))),
        None => (lower.as_str(), None),
    };
    let mut rest = public.strip_prefix('v').unwrap_or(public);
    let mut normal = String::new();
    while let Some(first) = rest.chars().next() {
        let is_kind = |c: char| match first {
            '0'..='9' => c.is_ascii_digit(),
            'a'..='z' => c.is_ascii_lowercase(),
            _ => false,
        };
        let length = rest
            .find(|c| !is_kind(c))
            .unwrap_or(rest.len())
            .max(first.len_utf8());
        let (part, after) = rest.split_at(length);
        rest = after;
        match part {
            "." | "-" | "_" => {
                let next_is_number = rest.starts_with(|c: char| c.is_ascii_digit());
                match (
                    part,
                    next_is_number,
                    normal.ends_with(|c: char| c.is_ascii_digit()),
                ) {
                    (".", true, true) => normal.push('.'),
                    ("-", true, true) => normal.push_str(".post"),
                    (_, _, _) if rest.is_empty() => return text.to_owned(),
                    _ => {}
                }
            }
            "!" => normal.push('!'),
            number if number.starts_with(|c: char| c.is_ascii_digit()) => {
                let significant = number.trim_start_matches('0');
                normal.push_str(if significant.is_empty() {
                    "0"
                } else {
                    significant
                });
            }
            word => {
                normal.push_str(match word {
                    "a" | "alpha" => "a",
                    "b" | "beta" => "b",
                    "c" | "rc" | "pre" | "preview" => "rc",
                    "post" | "rev" | "r" => ".post",
                    "dev" => ".dev",
                    _ => return text.to_owned(),
                });
                let after = rest.strip_prefix(['.', '-', '_']).unwrap_or(rest);
                if !after.starts_with(|c: char| c.is_ascii_digit()) {
                    normal.push('0');
                }
            }
        }
    }
    if normal.is_empty() {
        return text.to_owned();
    }
    match local {
        Some(local) => format!("{normal}+{local}"),
        None => normal,
    }
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

/// BigFlow, in the version that the project requires: BigFlow itself names the version that builds.
fn bigflow_requirement(requires: Option<&[String]>) -> String {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut lines = requires.unwrap_or_default().iter();
    let version = lines.find_map(|line| {
        let name_end = line.find(|c| !is_name(c))?;
        let (name, rest) = line.split_at(name_end);
        let (_, version) = rest.split(';').next()?.split_once("==")?;
        name.eq_ignore_ascii_case("bigflow").then(|| version.trim())
    });
    match version {
        Some(version) => format!("bigflow=={version}"),
        None => "bigflow".to_owned(),
    }
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
            requires.map(|r| {
                Value::from_iter(r.iter().map(|line| crate::wheels::strip_credentials(line)))
            }),
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
                toml::Value::Array(vec![toml::Value::String(bigflow_requirement(requires))]),
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
    fn versions_are_written_as_setuptools_does() {
        for (text, expected) in [
            ("1.2.0", "1.2.0"),
            ("v2.0-rc1", "2.0rc1"),
            ("1.0.alpha", "1.0a0"),
            ("1.0b.2", "1.0b2"),
            ("1.0-1", "1.0.post1"),
            ("1.0_post2.dev3", "1.0.post2.dev3"),
            ("0.1.0.dev1+gb930751c", "0.1.0.dev1+gb930751c"),
            ("0+t12ab-x", "0+t12ab.x"),
            ("01.02", "1.2"),
            ("nightly", "nightly"),
            ("INVALID", "INVALID"),
        ] {
            assert_eq!(normal_version(text), expected, "{text}");
        }
    }

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
