//! Brings wheels into a folder: by pip, with uv's help for other machines, and by building what
//! exists as sources alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use forebay_store::{Digesting, Sha256Digest};

use super::pip::{Outcome, Pip, Wanted};
use super::resolve::ResolveRequest;
use super::{
    LockedDistribution, LockedSource, Requirements, TargetPython, WheelError, WheelFileName, uv,
};
use crate::progress::Progress;

/// Requirements that are asked for, one after another, whether they have wheels.
const MAX_MISSING: usize = 50;

/// The source distributions of built wheels, by the wheels' file names.
pub(super) type Sources = BTreeMap<String, LockedSource>;

/// How wheels are brought into a folder.
pub(super) struct Downloads<'a> {
    pub(super) request: &'a ResolveRequest<'a>,
    pub(super) requirements: &'a Requirements,
    /// Where the wheels go.
    pub(super) wheels: PathBuf,
    pub(super) scratch: &'a Path,
    pub(super) pip: Pip<'a>,
    /// Settings of pip's for uv.
    pub(super) for_uv: Vec<(String, String)>,
    /// Whether uv resolves for this machine too, where it is there.
    pub(super) uv_chooses: bool,
    pub(super) progress: &'a dyn Progress,
}

impl Downloads<'_> {
    /// Brings the wheels; gives the sources of those that were built.
    pub(super) fn fetch(&self) -> Result<Sources, WheelError> {
        let target = self.request.target;
        let (major, minor, _) = self.request.version;
        let agrees = target.agrees_with((major, minor), self.request.platform);
        let other_target = (!agrees).then_some(target);
        let pins = self.scratch.join("pins.txt");
        if let Some(locked) = self.request.locked {
            let options = self.requirements.options_elsewhere().into_iter();
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

    /// For another machine uv resolves, where it is there: pip judges markers by the machine that
    /// it runs on, and knows nothing of what requires a source distribution.
    fn resolve_anew(
        &self,
        files: &[&Path],
        pins: &Path,
        other_target: Option<&TargetPython>,
    ) -> Result<(), WheelError> {
        if (other_target.is_some() || self.uv_chooses) && uv::is_there() {
            return self.resolve_with_uv(files, pins, other_target);
        }
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
        // pip resolves for another machine by wheels alone, and stops at the first that is missing.
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

    /// Everything by version and hash from uv; then pip brings exactly that.
    fn resolve_with_uv(
        &self,
        files: &[&Path],
        pins: &Path,
        other_target: Option<&TargetPython>,
    ) -> Result<(), WheelError> {
        let compiled = uv::compile(
            files,
            pins,
            self.request.directory,
            self.request.target,
            &self.for_uv,
            self.progress,
        )?;
        success(compiled, "uv pip compile")?;
        let read = WheelError::io(format!("cannot read {}", pins.display()));
        let compiled = fs::read_to_string(pins).map_err(read)?;
        // pip needs the same places as uv.
        let options = self.requirements.options_elsewhere().into_iter();
        let lines: Vec<String> = options.chain([compiled]).collect();
        write_lines(pins, &lines)?;
        self.download(&[pins], other_target, true)
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
        let lines = [requirements.options_elsewhere(), left.clone()].concat();
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
}
