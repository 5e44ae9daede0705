//! From requirements to wheels in the store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forebay_store::{ObjectDigest, Recipe, Store};
use serde::Serialize;

use super::download::Downloads;
use super::keep::{self, keep};
use super::pip::Pip;
use super::surroundings::{Digests, Surroundings};
use super::{LockedDistribution, Requirements, TargetPython, WheelError, WheelSet};
use crate::progress::{Event, Phase, Progress, Unit};

/// What is to be resolved.
#[derive(Debug, Clone, Copy)]
pub struct ResolveRequest<'a> {
    /// Requirements files.
    pub requirements: &'a [PathBuf],
    /// Constraint files.
    pub constraints: &'a [PathBuf],
    /// Further lines of a requirements file.
    pub lines: &'a [String],
    /// The project's folder: what uv is configured with is looked for in it and above.
    pub directory: &'a Path,
    /// What the wheels are for.
    pub target: &'a TargetPython,
    /// The interpreter whose pip is run.
    pub executable: &'a Path,
    /// Its version: major, minor, micro.
    pub version: (u8, u8, u8),
    /// Its `sysconfig.get_platform()`.
    pub platform: &'a str,
    /// What the requirements came to before, here or elsewhere: then they are not resolved
    /// again, and nothing else is fetched.
    pub locked: Option<&'a [LockedDistribution]>,
    /// Resolves again, whatever is known.
    pub refresh: bool,
}

/// What requirements come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The wheels.
    pub set: WheelSet,
    /// The same in words that can be fetched from on any machine, sorted.
    pub distributions: Vec<LockedDistribution>,
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

/// Everything that decides what a lock comes to: nothing of this machine, unless
/// something is built.
#[derive(Serialize)]
struct LockedInputs<'a> {
    distributions: &'a [LockedDistribution],
    target: &'a TargetPython,
    builder: Option<(String, &'a str)>,
}

fn read(request: &ResolveRequest<'_>) -> Result<Requirements, WheelError> {
    let mut requirements = Requirements::read(request.requirements)?;
    requirements.read_constraints(request.constraints)?;
    let (options, lines): (Vec<_>, Vec<_>) = request
        .lines
        .iter()
        .cloned()
        .partition(|line| line.starts_with('-'));
    for option in options {
        requirements.add_option(option, Path::new("."));
    }
    requirements.requirements.extend(lines);
    Ok(requirements)
}

/// Names the requirements of `request` for a lock file, alike on every machine. `None` if they
/// need no lock, because they name every hash themselves, or can have none, because
/// they name files or addresses of their own.
///
/// # Errors
/// Requirements that cannot be read.
pub fn lock_inputs(request: &ResolveRequest<'_>) -> Result<Option<ObjectDigest>, WheelError> {
    let requirements = read(request)?;
    if requirements.requirements.is_empty() || requirements.are_all_hashed() {
        return Ok(None);
    }
    Ok(requirements.portable_digest())
}

/// Finds the wheels of `request`: from the store if they were resolved before, from
/// `request.locked` if that is given, otherwise with pip (and uv).
///
/// What has no wheel is built from its source distribution. If the host's interpreter and
/// platform are not the target's, only a wheel that fits every Python 3 everywhere is taken;
/// the others are an error that names them.
///
/// # Errors
/// See [`WheelError`]. Nothing of a failed resolution is kept.
pub fn resolve(
    request: &ResolveRequest<'_>,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Resolution, WheelError> {
    let requirements = read(request)?;
    if requirements.requirements.is_empty() {
        return Ok(Resolution {
            set: WheelSet::default(),
            distributions: Vec::new(),
        });
    }
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| {
            let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
            (text(name), text(value))
        })
        .collect();
    let surroundings = Surroundings {
        variables: &variables,
        executable: request.executable,
        system: Path::new("/etc"),
        directory: request.directory,
    };
    let (major, minor, micro) = request.version;
    let interpreter = format!("{major}.{minor}.{micro}");
    let locked_recipe = |distributions: &[LockedDistribution]| {
        let builds = distributions.iter().any(|one| one.source.is_some());
        let inputs = LockedInputs {
            distributions,
            target: request.target,
            builder: builds.then(|| (interpreter.clone(), request.platform)),
        };
        Recipe::new("locked-wheels", 1, &inputs)
    };
    let recipe = match request.locked {
        Some(distributions) => locked_recipe(distributions)?,
        None => {
            let inputs = Inputs {
                requirements: requirements.digest().to_string(),
                target: request.target,
                interpreter: interpreter.clone(),
                platform: request.platform,
                surroundings: surroundings.observe(&requirements),
            };
            Recipe::new("wheel-set", 3, &inputs)?
        }
    };
    if !request.refresh
        && let Some(known) = keep::known(&recipe, store)?
    {
        return Ok(known);
    }

    progress.report(Event::Started {
        phase: Phase::Wheels,
        total: Some(requirements.requirements.len() as u64),
        unit: Unit::Items,
    });
    let scratch = tempfile::tempdir().map_err(WheelError::io("cannot make a folder for wheels"))?;
    let variables = surroundings.for_each_other();
    let downloads = Downloads {
        request,
        requirements: &requirements,
        wheels: scratch.path().join("wheels"),
        scratch: scratch.path(),
        pip: Pip::find(request.executable, variables.0)?,
        for_uv: variables.1,
        uv_chooses: surroundings.are_uvs_alone(),
        progress,
    };
    let sources = downloads.fetch()?;
    let resolution = keep(&downloads.wheels, &sources, &recipe, store)?;
    // What is locked now is not fetched a second time.
    if request.locked.is_none()
        && let Some(known) = store.realisation(&recipe.key())?
    {
        let mut batch = store.begin()?;
        batch.realise(&locked_recipe(&resolution.distributions)?.key(), &known)?;
        batch.commit()?;
    }
    if let Some(warning) = machine_bound(&resolution.set) {
        progress.report(Event::Warning(warning));
    }
    if let Some(warning) = request
        .locked
        .and_then(|locked| differs(locked, &resolution))
    {
        progress.report(Event::Warning(warning));
    }
    let set = &resolution.set;
    progress.report(Event::Finished {
        phase: Phase::Wheels,
        summary: format!(
            "{} wheels, {:.1} MB",
            set.wheels.len(),
            set.wheels.iter().map(|wheel| wheel.size).sum::<u64>() as f64 / 1e6
        ),
    });
    Ok(resolution)
}

/// What is to be said of wheels that were built into something else than where they were locked.
fn differs(locked: &[LockedDistribution], made: &Resolution) -> Option<String> {
    let names: Vec<&str> = made
        .distributions
        .iter()
        .filter(|one| !locked.contains(one))
        .map(|one| one.file.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "built from the locked sources, but into other bytes than where forebay.lock was written, so that the image is another one: {}",
            names.join(", ")
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wheels::LockedWheel;

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
