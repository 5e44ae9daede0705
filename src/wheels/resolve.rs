//! From requirements to wheels in the store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use forebay_store::{Digesting, ObjectDigest, Realisation, Recipe, Sha256Digest, Store};
use serde::Serialize;

use super::pip::{Outcome, Pip, Wanted};
use super::surroundings::{Digests, Surroundings};
use super::{
    LockedDistribution, LockedSource, LockedWheel, Requirements, TargetPython, WheelError,
    WheelFileName, WheelSet, uv,
};
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
    /// Constraint files.
    pub constraints: &'a [PathBuf],
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

/// The output of a realisation that holds the lock.
const LOCK: &str = "lock";

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
    };
    let (major, minor, micro) = request.version;
    let interpreter = format!("{major}.{minor}.{micro}");
    let recipe = match request.locked {
        Some(distributions) => {
            let builds = distributions.iter().any(|one| one.source.is_some());
            let inputs = LockedInputs {
                distributions,
                target: request.target,
                builder: builds.then_some((interpreter, request.platform)),
            };
            Recipe::new("locked-wheels", 1, &inputs)?
        }
        None => {
            let inputs = Inputs {
                requirements: requirements.digest().to_string(),
                target: request.target,
                interpreter,
                platform: request.platform,
                surroundings: surroundings.observe(&requirements),
            };
            Recipe::new("wheel-set", 3, &inputs)?
        }
    };
    let known = store
        .realisation(&recipe.key())?
        .filter(|_| !request.refresh);
    if let Some(outputs) = known.map(|known| known.outputs)
        && let (Some(set), Some(lock)) = (outputs.get(SET), outputs.get(LOCK))
        // A set of another version of this program is resolved again.
        && let Ok(set) = serde_json::from_slice(&store.read(set)?)
        && let Ok(distributions) = serde_json::from_slice(&store.read(lock)?)
    {
        return Ok(Resolution { set, distributions });
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
        progress,
    };
    let sources = downloads.fetch()?;
    let resolution = keep(&downloads.wheels, &sources, &recipe, store)?;
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

/// The source distributions of built wheels, by the wheels' file names.
type Sources = BTreeMap<String, LockedSource>;

/// How wheels are brought into a folder.
struct Downloads<'a> {
    request: &'a ResolveRequest<'a>,
    requirements: &'a Requirements,
    /// Where the wheels go.
    wheels: PathBuf,
    scratch: &'a Path,
    pip: Pip<'a>,
    /// Settings of pip's for uv.
    for_uv: Vec<(String, String)>,
    progress: &'a dyn Progress,
}

impl Downloads<'_> {
    fn fetch(&self) -> Result<Sources, WheelError> {
        let target = self.request.target;
        let (major, minor, _) = self.request.version;
        let agrees = target.agrees_with((major, minor), self.request.platform);
        let other_target = (!agrees).then_some(target);
        let pins = self.scratch.join("pins.txt");
        if let Some(locked) = self.request.locked {
            let options = self.requirements.options.iter().cloned();
            let lines: Vec<String> = options
                .chain(locked.iter().map(LockedDistribution::pin))
                .collect();
            write_lines(&pins, &lines)?;
            self.download(&[&pins], other_target, true)?;
        } else {
            let files = self.requirement_files()?;
            let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
            self.resolve_anew(&files, &pins, other_target)?;
        }
        self.build_sources(other_target.is_some())
    }

    fn resolve_anew(
        &self,
        files: &[&Path],
        pins: &Path,
        other_target: Option<&TargetPython>,
    ) -> Result<(), WheelError> {
        let wanted = Wanted {
            other_target,
            are_all: false,
        };
        let outcome = self
            .pip
            .download(files, &self.wheels, wanted, self.progress)?;
        let Some(target) = other_target.filter(|_| outcome.unmatched().is_some()) else {
            return success(outcome, "pip download");
        };
        if outcome.status.success() {
            return Ok(());
        }
        // Something has no wheel: pip resolves for another machine by wheels alone.
        if uv::is_there() {
            let compiled = uv::compile(files, pins, target, &self.for_uv, self.progress)?;
            success(compiled, "uv pip compile")?;
            return self.download(&[pins], other_target, true);
        }
        let missing = missing_wheels(
            &self.pip,
            target,
            self.requirements,
            self.scratch,
            self.progress,
        )?;
        if missing.is_empty() {
            return success(outcome, "pip download");
        }
        Err(WheelError::NoWheel {
            distributions: missing,
            target: target.to_string(),
        })
    }

    fn download(
        &self,
        files: &[&Path],
        other_target: Option<&TargetPython>,
        are_all: bool,
    ) -> Result<(), WheelError> {
        let wanted = Wanted {
            other_target,
            are_all,
        };
        let outcome = self
            .pip
            .download(files, &self.wheels, wanted, self.progress)?;
        success(outcome, "pip download")
    }

    /// The files that say what is wanted.
    fn requirement_files(&self) -> Result<Vec<PathBuf>, WheelError> {
        let request = self.request;
        let mut files: Vec<PathBuf> = request.requirements.to_vec();
        let mut lines = request.lines.to_vec();
        for constraint in request.constraints {
            let path = std::path::absolute(constraint).unwrap_or_else(|_| constraint.clone());
            lines.push(format!("--constraint {}", path.display()));
        }
        if needs_package_resources(self.requirements) {
            let constraint = self.scratch.join("constraint.txt");
            write_lines(&constraint, &[SETUPTOOLS.to_owned()])?;
            lines.push(format!("--constraint {}", constraint.display()));
        }
        if !lines.is_empty() {
            let more = self.scratch.join("requirements.txt");
            write_lines(&more, &lines)?;
            files.push(more);
        }
        Ok(files)
    }

    /// Builds what was downloaded as a source distribution.
    fn build_sources(&self, must_fit_everywhere: bool) -> Result<Sources, WheelError> {
        let list = || WheelError::io(format!("cannot list {}", self.wheels.display()));
        let mut sources = Sources::new();
        let mut unfit = Vec::new();
        let entries = fs::read_dir(&self.wheels).map_err(list())?;
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(list())?;
        paths.sort();
        for path in paths {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if name.ends_with(".whl") {
                continue;
            }
            let built = self.scratch.join("built").join(&name);
            let outcome = self.pip.build(&path, &built, self.progress)?;
            success(outcome, &format!("building {name}"))?;
            let open = || WheelError::io(format!("cannot read {}", path.display()));
            let sha256 = sha256_of(&path).map_err(open())?;
            for wheel in fs::read_dir(&built).map_err(list())? {
                let wheel = wheel.map_err(list())?;
                let file_name: WheelFileName = wheel.file_name().to_string_lossy().parse()?;
                if must_fit_everywhere && !file_name.is_universal() {
                    unfit.push(name.clone());
                }
                let to = self.wheels.join(file_name.as_str());
                fs::rename(wheel.path(), to).map_err(list())?;
                let source = LockedSource {
                    file: name.clone(),
                    sha256,
                };
                sources.insert(file_name.to_string(), source);
            }
            fs::remove_file(&path).map_err(list())?;
        }
        if unfit.is_empty() {
            return Ok(sources);
        }
        Err(WheelError::NoWheel {
            distributions: unfit,
            target: self.request.target.to_string(),
        })
    }
}

fn sha256_of(path: &Path) -> std::io::Result<Sha256Digest> {
    let mut digesting = Digesting::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digesting.finish().1),
            length => digesting.update(buffer.get(..length).unwrap_or_default()),
        }
    }
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
fn keep(
    directory: &Path,
    sources: &Sources,
    recipe: &Recipe,
    store: &Store,
) -> Result<Resolution, WheelError> {
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
    let distributions: Vec<LockedDistribution> = set
        .wheels
        .iter()
        .map(|wheel| LockedDistribution {
            file: wheel.file_name.clone(),
            sha256: wheel.sha256,
            source: sources.get(wheel.file_name.as_str()).cloned(),
        })
        .collect();
    let failed =
        |error: serde_json::Error| WheelError::io("cannot write the set of wheels")(error.into());
    let mut realisation = Realisation::default();
    for (output, bytes) in [
        (SET, serde_json::to_vec(&set).map_err(failed)?),
        (LOCK, serde_json::to_vec(&distributions).map_err(failed)?),
    ] {
        let object = batch.put(&bytes)?.digest;
        realisation.outputs.insert(output.to_owned(), object);
    }
    for wheel in &set.wheels {
        realisation
            .outputs
            .insert(wheel.file_name.to_string(), wheel.object);
    }
    batch.realise(&recipe.key(), &realisation)?;
    batch.commit()?;
    Ok(Resolution { set, distributions })
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
