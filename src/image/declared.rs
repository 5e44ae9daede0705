//! An image that `[tool.forebay.image]` describes, instead of a Dockerfile.
//!
//! The settings are written as the Dockerfile that they stand for and planned as
//! every other, so that the two forms cannot come to mean different things.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::ImageError;
use super::plan::{BaseName, ContainerSettings, CopiedFile, ImagePlan, Step};
use crate::project::{CopySetting, ImageSettings};

/// Quotes `text` so that a Dockerfile's words and variables leave it as it is.
fn quoted(text: &str) -> Result<String, ImageError> {
    if text.contains(['\n', '\r']) {
        return Err(ImageError::Project {
            problem: format!("[tool.forebay.image]: {text:?} has more than one line"),
        });
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        if matches!(character, '"' | '\\' | '$') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    Ok(quoted)
}

/// The exec form of an instruction: a JSON list.
fn list(words: &[String]) -> String {
    serde_json::Value::from(words.to_vec()).to_string()
}

/// The Dockerfile that `settings` stand for; `None` if they name no base, so that the project's
/// own Dockerfile counts.
///
/// # Errors
/// A value that no Dockerfile can have.
pub fn declared_dockerfile(settings: &ImageSettings) -> Result<Option<String>, ImageError> {
    let Some(base) = &settings.base else {
        return match settings.declares_anything() {
            true => Err(ImageError::Project {
                problem: "[tool.forebay.image] describes an image but names no `base`".to_owned(),
            }),
            false => Ok(None),
        };
    };
    let mut text = format!("FROM {base}\n");
    let mut line = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    for (instruction, pairs) in [("ENV", &settings.env), ("LABEL", &settings.labels)] {
        for (name, value) in pairs {
            line(format!("{instruction} {name}={}", quoted(value)?));
        }
    }
    if let Some(directory) = &settings.workdir {
        line(format!("WORKDIR {directory}"));
    }
    for CopySetting { from, to } in &settings.copy {
        let words = [from, to].map(|path| path.replace('$', "\\$"));
        line(format!("COPY {}", list(&words)));
    }
    if !settings.packages.is_empty() {
        let packages: Result<Vec<String>, _> =
            settings.packages.iter().map(|p| quoted(p)).collect();
        line(format!("RUN pip install {}", packages?.join(" ")));
    }
    line("COPY dist /dist".to_owned());
    line("RUN pip install /dist/*.whl".to_owned());
    for (instruction, words) in [("EXPOSE", &settings.ports), ("VOLUME", &settings.volumes)] {
        if !words.is_empty() && instruction == "VOLUME" {
            line(format!("{instruction} {}", list(words)));
        } else if !words.is_empty() {
            line(format!("{instruction} {}", words.join(" ")));
        }
    }
    for (instruction, value) in [
        ("USER", &settings.user),
        ("STOPSIGNAL", &settings.stop_signal),
    ] {
        if let Some(value) = value {
            line(format!("{instruction} {value}"));
        }
    }
    for (instruction, words) in [
        ("ENTRYPOINT", &settings.entrypoint),
        ("CMD", &settings.command),
    ] {
        if let Some(words) = words {
            line(format!("{instruction} {}", list(words)));
        }
    }
    Ok(Some(text))
}

/// Puts the requirement files of the settings in the place of the project's own.
pub fn with_declared_requirements(mut plan: ImagePlan, settings: &ImageSettings) -> ImagePlan {
    let Some(requirements) = settings.base.as_ref().and(settings.requirements.as_ref()) else {
        return plan;
    };
    plan.requirement_files.clone_from(requirements);
    if !requirements.is_empty() && !plan.steps.contains(&Step::Wheels) {
        let project = plan.steps.iter().position(|step| *step == Step::Project);
        plan.steps
            .insert(project.unwrap_or(plan.steps.len()), Step::Wheels);
    }
    if requirements.is_empty() && plan.requirement_lines.is_empty() {
        plan.steps.retain(|step| *step != Step::Wheels);
    }
    plan
}

/// The settings that say what a planned Dockerfile says.
///
/// # Errors
/// Lines that have no native form.
pub fn declaration_of(plan: &ImagePlan, base: &BaseName) -> Result<ImageSettings, ImageError> {
    let lines: Vec<_> = plan
        .lines
        .iter()
        .filter(|line| !line.class.is_native())
        .cloned()
        .collect();
    if !lines.is_empty() {
        return Err(ImageError::Lines { lines });
    }
    let ContainerSettings {
        environment,
        working_directory,
        labels,
        user,
        exposed_ports,
        volumes,
        command,
        entrypoint,
        stop_signal,
    } = plan.settings.clone();
    let mut copy = Vec::new();
    for step in &plan.steps {
        if let Step::Copy { files, .. } = step {
            // pip reads these from the project's folder.
            let files: Vec<&CopiedFile> = files
                .iter()
                .filter(|file| !plan.requirement_files.contains(&file.from))
                .collect();
            copy.extend(folders(&files));
        }
    }
    Ok(ImageSettings {
        base: Some(match base {
            BaseName::Scratch => "scratch".to_owned(),
            BaseName::Image(reference) => reference.to_string(),
        }),
        requirements: Some(plan.requirement_files.clone()),
        packages: plan.requirement_lines.clone(),
        env: environment.into_iter().collect::<BTreeMap<_, _>>(),
        labels,
        workdir: working_directory,
        copy,
        user,
        ports: exposed_ports.into_iter().collect(),
        volumes: volumes.into_iter().collect(),
        entrypoint,
        command,
        stop_signal,
        ..ImageSettings::default()
    })
}

/// Files as the folders that they are copied with, where a whole folder is.
fn folders(files: &[&CopiedFile]) -> Vec<CopySetting> {
    let mut copied: Vec<CopySetting> = Vec::new();
    for file in files {
        let (mut from, mut to) = (file.from.as_str(), file.to.as_str());
        // What ends alike was below a folder that was copied, if others were, too.
        while let (Some((above, name)), Some((to_above, to_name))) =
            (from.rsplit_once('/'), to.rsplit_once('/'))
        {
            let siblings = |file: &&&CopiedFile| {
                let below = |path: &str, folder: &str| {
                    path.strip_prefix(folder)
                        .is_some_and(|rest| rest.starts_with('/'))
                };
                below(&file.from, above) && below(&file.to, to_above)
            };
            if name != to_name || files.iter().filter(siblings).count() < 2 {
                break;
            }
            (from, to) = (above, to_above);
        }
        let setting = CopySetting {
            from: from.to_owned(),
            to: format!("/{to}"),
        };
        if !copied.contains(&setting) {
            copied.push(setting);
        }
    }
    copied
}

/// `settings` as the section of pyproject.toml.
pub fn declaration_text(settings: &ImageSettings) -> String {
    let text = |value: &str| toml::Value::from(value).to_string();
    let texts = |values: &[String]| toml::Value::from(values.to_vec()).to_string();
    let mut lines = vec!["[tool.forebay.image]".to_owned()];
    let mut add = |key: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{key} = {value}")))
    };
    add("base", settings.base.as_deref().map(text));
    add("requirements", settings.requirements.as_deref().map(texts));
    let some = |values: &[String]| (!values.is_empty()).then(|| texts(values));
    add("packages", some(&settings.packages));
    add("workdir", settings.workdir.as_deref().map(text));
    add("user", settings.user.as_deref().map(text));
    add("ports", some(&settings.ports));
    add("volumes", some(&settings.volumes));
    add("entrypoint", settings.entrypoint.as_deref().map(texts));
    add("command", settings.command.as_deref().map(texts));
    add("stop_signal", settings.stop_signal.as_deref().map(text));
    let copies: Vec<String> = settings
        .copy
        .iter()
        .map(|c| {
            format!(
                "    {{ from = {}, to = {} }},\n",
                text(&c.from),
                text(&c.to)
            )
        })
        .collect();
    add(
        "copy",
        (!copies.is_empty()).then(|| format!("[\n{}]", copies.concat())),
    );
    for (name, pairs) in [("env", &settings.env), ("labels", &settings.labels)] {
        if !pairs.is_empty() {
            lines.push(format!("\n[tool.forebay.image.{name}]"));
            lines.extend(
                pairs
                    .iter()
                    .map(|(key, value)| format!("{} = {}", text(key), text(value))),
            );
        }
    }
    lines.join("\n") + "\n"
}
