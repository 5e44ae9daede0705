//! From requirements to wheels in the store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use forebay_store::{Realisation, Recipe, Store};
use serde::Serialize;

use super::pip::{Outcome, Pip};
use super::surroundings::{Digests, Surroundings};
use super::{LockedWheel, Requirements, TargetPython, WheelError, WheelFileName, WheelSet};
use crate::progress::{Event, Phase, Progress, Unit};
use crate::wheels::{Archive, InstallScheme, Installation};

/// The output of a realisation that holds the set itself.
const SET: &str = "set";
/// Requirements that are asked for, one after another, whether they have wheels.
const MAX_MISSING: usize = 50;

/// What is to be resolved.
#[derive(Debug, Clone, Copy)]
pub struct ResolveRequest<'a> {
    /// Requirements files.
    pub requirements: &'a [PathBuf],
    /// Further lines of a requirements file.
    pub lines: &'a [String],
    /// What the wheels are for.
    pub target: &'a TargetPython,
    /// The interpreter whose pip is run.
    pub executable: &'a Path,
    /// Its version: major, minor, micro.
    pub version: (u8, u8, u8),
    /// Its `sysconfig.get_platform()`.
    pub platform: &'a str,
}

/// Everything that decides what requirements come to. What an index offers at
/// the time does too, which is why the answer is kept: the same text gives the
/// same wheels until it changes.
#[derive(Serialize)]
struct Inputs<'a> {
    requirements: String,
    target: &'a TargetPython,
    interpreter: String,
    platform: &'a str,
    surroundings: Digests,
}

/// Finds the wheels of `request`: from the store if they were resolved before,
/// otherwise with pip.
///
/// If the interpreter agrees with the target in minor version and platform,
/// distributions that have no wheel are built; otherwise they are an error that
/// names them.
///
/// # Errors
/// See [`WheelError`]. Nothing of a failed resolution is kept.
pub fn resolve(
    request: &ResolveRequest<'_>,
    store: &Store,
    progress: &dyn Progress,
) -> Result<WheelSet, WheelError> {
    let mut requirements = Requirements::read(request.requirements)?;
    let (options, lines): (Vec<_>, Vec<_>) = request
        .lines
        .iter()
        .cloned()
        .partition(|line| line.starts_with('-'));
    for option in options {
        requirements.add_option(option, Path::new("."));
    }
    requirements.requirements.extend(lines);
    if requirements.requirements.is_empty() {
        return Ok(WheelSet::default());
    }
    let (major, minor, micro) = request.version;
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| {
            let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
            (text(name), text(value))
        })
        .collect();
    let recipe = Recipe::new(
        "wheel-set",
        2,
        &Inputs {
            requirements: requirements.digest().to_string(),
            target: request.target,
            interpreter: format!("{major}.{minor}.{micro}"),
            platform: request.platform,
            surroundings: Surroundings {
                variables: &variables,
                executable: request.executable,
                system: Path::new("/etc"),
            }
            .observe(&requirements),
        },
    )?;
    let known = store.realisation(&recipe.key())?;
    if let Some(set) = known.as_ref().and_then(|known| known.outputs.get(SET)) {
        // A set of another version of this program is resolved again.
        if let Ok(set) = serde_json::from_slice(&store.read(set)?) {
            return Ok(set);
        }
    }

    progress.report(Event::Started {
        phase: Phase::Wheels,
        total: Some(requirements.requirements.len() as u64),
        unit: Unit::Items,
    });
    let scratch = tempfile::tempdir().map_err(WheelError::io("cannot make a folder for wheels"))?;
    fetch(request, &requirements, scratch.path(), progress)?;
    let set = keep(scratch.path(), &recipe, store)?;
    if let Some(warning) = machine_bound(&set) {
        progress.report(Event::Warning(warning));
    }
    progress.report(Event::Finished {
        phase: Phase::Wheels,
        summary: format!(
            "{} wheels, {:.1} MB",
            set.wheels.len(),
            set.wheels.iter().map(|wheel| wheel.size).sum::<u64>() as f64 / 1e6
        ),
    });
    Ok(set)
}

/// What is to be said of wheels that were compiled here, if there are any.
fn machine_bound(set: &WheelSet) -> Option<String> {
    let names: Vec<&str> = set
        .wheels
        .iter()
        .filter(|wheel| wheel.file_name.is_machine_bound())
        .map(|wheel| wheel.file_name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "built on this machine, may not run in the image, and differs from machine to machine: {}",
            names.join(", ")
        )
    })
}

/// Has pip bring the wheels into `directory`.
fn fetch(
    request: &ResolveRequest<'_>,
    requirements: &Requirements,
    directory: &Path,
    progress: &dyn Progress,
) -> Result<(), WheelError> {
    let pip = Pip::find(request.executable)?;
    let extra = tempfile::tempdir().map_err(WheelError::io("cannot make a folder for pip"))?;
    let lines = extra.path().join("requirements.txt");
    write_lines(&lines, request.lines)?;
    let mut files: Vec<&Path> = request.requirements.iter().map(PathBuf::as_path).collect();
    if !request.lines.is_empty() {
        files.push(&lines);
    }
    let bounds = extra.path().join("bounds.txt");
    if needs_package_resources(requirements) {
        let constraint = extra.path().join("constraint.txt");
        write_lines(&constraint, &[SETUPTOOLS.to_owned()])?;
        write_lines(&bounds, &[format!("--constraint {}", constraint.display())])?;
        files.push(&bounds);
    }
    let (major, minor, _) = request.version;
    if request.target.agrees_with((major, minor), request.platform) {
        let outcome = pip.wheel(&files, directory, progress)?;
        return success(outcome, "pip wheel");
    }
    let outcome = pip.download(&files, directory, request.target, progress)?;
    if outcome.status.success() || outcome.unmatched().is_none() {
        return success(outcome, "pip download");
    }
    let missing = missing_wheels(&pip, request.target, requirements, extra.path(), progress)?;
    if missing.is_empty() {
        return success(outcome, "pip download");
    }
    Err(WheelError::NoWheel {
        distributions: missing,
        target: request.target.to_string(),
    })
}

/// The last setuptools that has the `pkg_resources` which BigFlow imports to run a job. BigFlow
/// itself asks for any from 45 on; what a base image brings along satisfies that for pip, but
/// here every requirement becomes a wheel, and the newest one would break every pod.
const SETUPTOOLS: &str = "setuptools<82";

/// Whether setuptools must be kept from growing: the project uses BigFlow, and its
/// requirements leave open which setuptools.
fn needs_package_resources(requirements: &Requirements) -> bool {
    let names = |lines: &[String], name: &str| lines.iter().any(|line| requires(line, name));
    names(&requirements.requirements, "bigflow")
        && !names(&requirements.requirements, "setuptools")
        && !names(&requirements.constraints, "setuptools")
        && !requirements.are_all_hashed()
}

/// Whether a line requires the distribution `name`.
fn requires(line: &str, name: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let end = line.find(|c| !is_of_name(c)).unwrap_or(line.len());
    line.get(..end)
        .is_some_and(|found| found.eq_ignore_ascii_case(name))
}

fn success(outcome: Outcome, command: &str) -> Result<(), WheelError> {
    if outcome.status.success() {
        Ok(())
    } else {
        Err(outcome.into_error(command))
    }
}

fn write_lines(path: &Path, lines: &[String]) -> Result<(), WheelError> {
    fs::write(path, lines.join("\n"))
        .map_err(WheelError::io(format!("cannot write {}", path.display())))
}

/// pip stops at the first requirement without a wheel: asks again without it,
/// until all that have none are known.
fn missing_wheels(
    pip: &Pip<'_>,
    target: &TargetPython,
    requirements: &Requirements,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Vec<String>, WheelError> {
    let mut left = requirements.requirements.clone();
    let mut missing = Vec::new();
    let file = scratch.join("missing.txt");
    while missing.len() < MAX_MISSING && !left.is_empty() {
        let lines = [requirements.options.as_slice(), left.as_slice()].concat();
        write_lines(&file, &lines)?;
        let outcome = pip.has_wheels(&[&file], &scratch.join("target"), target, progress)?;
        let Some(name) = outcome.unmatched() else {
            break;
        };
        let before = left.len();
        left.retain(|line| !line.starts_with(name));
        missing.push(name.to_owned());
        if left.len() == before {
            break;
        }
    }
    Ok(missing)
}

/// Checks the wheels in `directory` and brings them into the store: the wheels
/// first, the set that names them, then the realisation, in one batch.
fn keep(directory: &Path, recipe: &Recipe, store: &Store) -> Result<WheelSet, WheelError> {
    let list = || WheelError::io(format!("cannot list {}", directory.display()));
    let mut batch = store.begin()?;
    let mut wheels = Vec::new();
    for file in fs::read_dir(directory).map_err(list())? {
        let file = file.map_err(list())?;
        let file_name: WheelFileName = file.file_name().to_string_lossy().parse()?;
        check(&file.path(), &file_name)?;
        let open = || WheelError::io(format!("cannot read {}", file.path().display()));
        let info = batch.put_reader(&mut File::open(file.path()).map_err(open())?)?;
        wheels.push(LockedWheel {
            file_name,
            object: info.digest,
            sha256: info.sha256,
            size: info.size,
        });
    }
    let set = WheelSet::new(wheels)?;
    let bytes = serde_json::to_vec(&set)
        .map_err(|error| WheelError::io("cannot write the set of wheels")(error.into()))?;
    let mut realisation = Realisation::default();
    realisation
        .outputs
        .insert(SET.to_owned(), batch.put(&bytes)?.digest);
    for wheel in &set.wheels {
        realisation
            .outputs
            .insert(wheel.file_name.to_string(), wheel.object);
    }
    batch.realise(&recipe.key(), &realisation)?;
    batch.commit()?;
    Ok(set)
}

/// Refuses a wheel that could not be installed, before the store has it.
fn check(path: &Path, file_name: &WheelFileName) -> Result<(), WheelError> {
    let refused = |source| WheelError::Refused {
        wheel: file_name.to_string(),
        source,
    };
    let file =
        File::open(path).map_err(WheelError::io(format!("cannot read {}", path.display())))?;
    let archive = Archive::open(file).map_err(refused)?;
    Installation::plan(&archive, file_name, &InstallScheme::relative()).map_err(refused)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setuptools_is_bounded_for_bigflow_unless_somebody_decided() {
        let needs = |requirements: &[&str], constraints: &[&str]| {
            let texts = |lines: &[&str]| {
                lines
                    .iter()
                    .map(|line| (*line).to_owned())
                    .collect::<Vec<_>>()
            };
            let mut read = Requirements::default();
            read.requirements = texts(requirements);
            read.constraints = texts(constraints);
            needs_package_resources(&read)
        };
        assert!(needs(&["bigflow[log]==1.11.3", "six"], &[]));
        assert!(needs(&["BigFlow"], &[]));
        assert!(!needs(&["bigflow==1.11.3", "setuptools==83.0.0"], &[]));
        assert!(!needs(&["bigflow==1.11.3"], &["setuptools<80"]));
        assert!(!needs(&["bigflow-extras==1", "six"], &[]));
        assert!(!needs(&["bigflow==1.11.3 --hash=sha256:00"], &[]));
    }

    #[test]
    fn wheels_that_were_compiled_here_are_named() {
        let set = |names: &[&str]| WheelSet {
            wheels: names
                .iter()
                .map(|name| LockedWheel {
                    file_name: name.parse().unwrap(),
                    object: forebay_store::ObjectDigest::of(b""),
                    sha256: forebay_store::Sha256Digest::of(b""),
                    size: 0,
                })
                .collect(),
        };
        let portable = [
            "a-1-py3-none-any.whl",
            "b-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        ];
        assert_eq!(machine_bound(&set(&portable)), None);
        let compiled = "crcmod-1.7-cp311-cp311-linux_x86_64.whl";
        let said = machine_bound(&set(&[portable[0], compiled])).unwrap();
        assert!(
            said.contains(compiled) && !said.contains(portable[0]),
            "{said}"
        );
    }
}
