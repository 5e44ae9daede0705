//! What a `pip install` of a RUN line installs.

use super::run::{Effect, resolve_path};

/// Options of `pip install` that change nothing that is installed.
const PIP_SWITCHES: [&str; 20] = [
    "--break-system-packages",
    "--disable-pip-version-check",
    "--force-reinstall",
    "--ignore-installed",
    "--isolated",
    "--no-cache",
    "--no-cache-dir",
    "--no-color",
    "--no-compile",
    "--no-input",
    "--no-warn-conflicts",
    "--no-warn-script-location",
    "--prefer-binary",
    "--quiet",
    "--system",
    "--upgrade",
    "--verbose",
    "-U",
    "-q",
    "-v",
];
/// The same, with a value.
const PIP_OPTIONS: [&str; 9] = [
    "--cache-dir",
    "--default-timeout",
    "--progress-bar",
    "--retries",
    "--root-user-action",
    "--timeout",
    "--upgrade-strategy",
    "--use-deprecated",
    "--use-feature",
];
/// Options that say where distributions come from; a requirements file may have them.
const PIP_INDEX_OPTIONS: [&str; 7] = [
    "--extra-index-url",
    "--find-links",
    "--index-url",
    "--no-binary",
    "--only-binary",
    "--trusted-host",
    "-i",
];
/// Options without a value that a requirements file may have, too.
const PIP_FILE_SWITCHES: [&str; 3] = ["--no-index", "--pre", "--require-hashes"];

fn is_requirement(word: &str) -> bool {
    let name_end = word
        .find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
        .unwrap_or(word.len());
    let (name, rest) = word.split_at(name_end);
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !name.ends_with(".whl")
        && !name.ends_with(".gz")
        && (rest.is_empty() || rest.starts_with(['=', '<', '>', '!', '~', '[', ' ', ';']))
        && !rest.contains('/')
}

/// The directory of a word like `dist/*.whl`.
pub(super) fn wheel_directory(word: &str, directory: &str) -> Option<String> {
    let (parent, file) = word.rsplit_once('/').unwrap_or((".", word));
    let is_wheel = file
        .strip_suffix(".whl")
        .is_some_and(|stem| stem.contains('*'));
    (is_wheel && !parent.contains(['*', '?', '['])).then(|| resolve_path(directory, parent))
}

pub(super) fn pip_install(words: &[String], directory: &str) -> Result<Vec<Effect>, String> {
    let mut files = Vec::new();
    let mut constraints = Vec::new();
    let mut lines = Vec::new();
    let mut wheels = Vec::new();
    let mut no_dependencies = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (option, inline) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let mut value = || {
            inline
                .clone()
                .or_else(|| words.next().cloned())
                .ok_or_else(|| format!("pip's option {option} lacks its value"))
        };
        if let Some(file) = word.strip_prefix("-r").filter(|_| !word.starts_with("--")) {
            let file = if file.is_empty() {
                value()?
            } else {
                file.to_owned()
            };
            files.push(resolve_path(directory, &file));
        } else if option == "--requirement" {
            let file = value()?;
            files.push(resolve_path(directory, &file));
        } else if let Some(file) = word.strip_prefix("-c").filter(|_| !word.starts_with("--")) {
            let file = if file.is_empty() {
                value()?
            } else {
                file.to_owned()
            };
            constraints.push(resolve_path(directory, &file));
        } else if option == "--constraint" {
            let file = value()?;
            constraints.push(resolve_path(directory, &file));
        } else if PIP_FILE_SWITCHES.contains(&option) {
            lines.push(word.clone());
        } else if PIP_SWITCHES.contains(&option) {
            continue;
        } else if PIP_OPTIONS.contains(&option) {
            value()?;
        } else if PIP_INDEX_OPTIONS.contains(&option) {
            let value = value()?;
            lines.push(format!("{option} {value}"));
        } else if option == "--no-deps" {
            no_dependencies = true;
        } else if option.starts_with('-') {
            return Err(format!("pip's option {option} is not known here"));
        } else if let Some(parent) = wheel_directory(word, directory) {
            wheels.push(parent);
        } else if is_requirement(word) {
            lines.push(word.clone());
        } else {
            return Err(format!(
                "pip would install {word:?}, which is no requirement and no dist/*.whl"
            ));
        }
    }
    let names_something = !files.is_empty() || lines.iter().any(|line| !line.starts_with('-'));
    if wheels.is_empty() {
        if !names_something {
            return Err("pip is told to install nothing".to_owned());
        }
        if no_dependencies {
            return Err("pip's option --no-deps is only known with the project's wheel".to_owned());
        }
        let requirements = lines.iter().filter(|line| !line.starts_with('-'));
        if files.is_empty() && requirements.clone().all(|line| is_installer(line)) {
            return Ok(vec![Effect::Installer(
                "pip itself has no part in installing these wheels",
            )]);
        }
    }
    if no_dependencies && names_something {
        return Err(
            "pip's option --no-deps is only known with the project's wheel alone".to_owned(),
        );
    }
    let mut effects = Vec::new();
    if names_something || !lines.is_empty() || !constraints.is_empty() {
        effects.push(Effect::Install {
            files,
            constraints,
            lines,
        });
    }
    match wheels.as_slice() {
        [] => {}
        [directory] => effects.push(Effect::InstallWheels {
            directory: directory.clone(),
            dependencies: !no_dependencies,
        }),
        _ => return Err("one pip command installs wheels of several folders".to_owned()),
    }
    Ok(effects)
}

/// Whether a requirement is only for what installs packages, at any version.
fn is_installer(requirement: &str) -> bool {
    let name: &str = requirement
        .split(['=', '<', '>', '!', '~'])
        .next()
        .unwrap_or_default();
    matches!(name, "pip" | "wheel" | "pip-tools" | "uv")
}
