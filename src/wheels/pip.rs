//! Runs an interpreter's pip, or the one that uv lends it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use super::requirements::strip_credentials;
use super::{TargetPython, WheelError};
use crate::progress::{Event, Phase, Progress};

/// Bytes of pip's messages that are kept.
const MAX_MESSAGES: usize = 256 << 10;
/// Lines of them that an error shows.
const SHOWN_LINES: usize = 12;

/// The newest glibc that wheels for another machine may need: Debian 10's.
const MANYLINUX: [&str; 7] = [
    "manylinux_2_28",
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_12",
    "manylinux2010",
    "manylinux_2_5",
    "manylinux1",
];

/// A way to run pip under an interpreter.
pub(super) struct Pip<'a> {
    executable: &'a Path,
    lent_by_uv: bool,
    /// Settings that pip has not but uv.
    variables: Vec<(String, String)>,
}

/// How a run of pip ended.
pub(super) struct Outcome {
    pub(super) status: ExitStatus,
    messages: String,
}

impl Outcome {
    /// What pip says it could not find.
    pub(super) fn unmatched(&self) -> Option<&str> {
        self.messages.lines().find_map(|line| {
            let (_, requirement) = line.split_once("No matching distribution found for ")?;
            requirement.split(" (").next().map(str::trim)
        })
    }

    /// The outcome as an error.
    pub(super) fn into_error(self, command: &str) -> WheelError {
        let lines: Vec<&str> = self
            .messages
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with("[notice]"))
            .collect();
        // pip's own verdict is marked; a build's log stands above it.
        let start = lines.len().saturating_sub(SHOWN_LINES);
        let shown = lines.get(start..).unwrap_or_default().join("\n");
        WheelError::Pip {
            command: command.to_owned(),
            status: self.status.to_string(),
            output: strip_credentials(&shown),
        }
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

impl<'a> Pip<'a> {
    /// Looks for pip in the interpreter, then for uv.
    pub(super) fn find(
        executable: &'a Path,
        variables: Vec<(String, String)>,
    ) -> Result<Self, WheelError> {
        let has_pip = quiet(Command::new(executable).args([
            "-c",
            "import importlib.util as u, sys; sys.exit(u.find_spec('pip') is None)",
        ]))
        .status()
        .map_err(WheelError::io(format!(
            "cannot start {}",
            executable.display()
        )))?;
        if has_pip.success() {
            return Ok(Self {
                executable,
                lent_by_uv: false,
                variables,
            });
        }
        let has_uv = quiet(Command::new("uv").arg("--version")).status();
        if has_uv.is_ok_and(|status| status.success()) {
            return Ok(Self {
                executable,
                lent_by_uv: true,
                variables,
            });
        }
        Err(WheelError::NoPip {
            executable: executable.to_owned(),
        })
    }

    fn command(&self, subcommand: &str) -> Command {
        log::debug!("running pip {subcommand}");
        let mut command = if self.lent_by_uv {
            let mut command = Command::new("uv");
            command.args(["tool", "run", "--quiet", "--python"]);
            command.arg(self.executable).arg("pip");
            command
        } else {
            let mut command = Command::new(self.executable);
            command.args(["-m", "pip"]);
            command
        };
        command
            .arg(subcommand)
            .args(["--disable-pip-version-check", "--no-input", "--no-color"])
            .args(["--progress-bar", "off"])
            .env("PYTHONUTF8", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Wheels that are built here are dated as layers are, whatever the user's own
        // date is: they are kept for later images too.
        command.env("SOURCE_DATE_EPOCH", "315532801");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Builds the wheel of one source distribution into `directory`.
    pub(super) fn build(
        &self,
        source: &Path,
        directory: &Path,
        progress: &dyn Progress,
    ) -> Result<Outcome, WheelError> {
        let mut command = self.command("wheel");
        command.args(["--no-deps", "--wheel-dir"]).arg(directory);
        command.arg(source);
        // What a source distribution is built with is on no list of hashes.
        command.env_remove("PIP_REQUIRE_HASHES");
        run(&mut command, progress)
    }

    /// Downloads what requirements files come to into `directory`: wheels, and source
    /// distributions of what has none.
    pub(super) fn download(
        &self,
        requirements: &[&Path],
        directory: &Path,
        wanted: Wanted<'_>,
        progress: &dyn Progress,
    ) -> Result<Outcome, WheelError> {
        let mut command = self.command("download");
        command.arg("--dest").arg(directory);
        if wanted.are_all {
            command.arg("--no-deps");
        }
        if let Some(target) = wanted.other_target {
            for_target(&mut command, target);
            // pip resolves for another machine by wheels alone.
            if !wanted.are_all {
                command.args(["--only-binary", ":all:"]);
            }
        }
        run(with_files(&mut command, requirements), progress)
    }

    /// Asks, without downloading more than metadata, whether these
    /// requirements themselves (not what they require) have wheels.
    pub(super) fn has_wheels(
        &self,
        requirements: &[&Path],
        scratch: &Path,
        target: &TargetPython,
        progress: &dyn Progress,
    ) -> Result<Outcome, WheelError> {
        let mut command = self.command("install");
        command.args(["--dry-run", "--no-deps", "--ignore-installed", "--target"]);
        command.arg(scratch);
        command.args(["--only-binary", ":all:"]);
        for_target(&mut command, target);
        run(with_files(&mut command, requirements), progress)
    }
}

/// What is downloaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The image's Python, if it is not the host's.
    pub(super) other_target: Option<&'a TargetPython>,
    /// Whether the requirements are all there is: nothing that they require is added.
    pub(super) are_all: bool,
}

fn with_files<'c>(command: &'c mut Command, files: &[&Path]) -> &'c mut Command {
    for file in files {
        command.arg("--requirement").arg(file);
    }
    command
}

fn for_target(command: &mut Command, target: &TargetPython) {
    let TargetPython { major, minor, .. } = target;
    command.args(["--implementation", "cp"]);
    command
        .arg("--python-version")
        .arg(format!("{major}.{minor}"));
    for abi in [
        format!("cp{major}{minor}"),
        format!("abi{major}"),
        "none".to_owned(),
    ] {
        command.arg("--abi").arg(abi);
    }
    let machine = target.platform.machine();
    for manylinux in MANYLINUX {
        command
            .arg("--platform")
            .arg(format!("{manylinux}_{machine}"));
    }
    command.arg("--platform").arg(format!("linux_{machine}"));
}

/// Runs pip (or uv): its steps become progress, its messages are kept for an error.
pub(super) fn run(command: &mut Command, progress: &dyn Progress) -> Result<Outcome, WheelError> {
    let start = WheelError::io(format!(
        "cannot start {}",
        command.get_program().to_string_lossy()
    ));
    let mut child = command.spawn().map_err(start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let messages = std::thread::scope(|scope| {
        let errors = scope.spawn(move || {
            let mut messages = Vec::new();
            for chunk in stderr
                .into_iter()
                .flat_map(|stderr| BufReader::new(stderr).split(b'\n'))
            {
                let Ok(line) = chunk else { break };
                messages.extend_from_slice(&line);
                messages.push(b'\n');
                if messages.len() > MAX_MESSAGES {
                    messages.drain(..MAX_MESSAGES / 2);
                }
            }
            messages
        });
        if let Some(stdout) = stdout {
            let mut lines = BufReader::new(stdout.take(u64::MAX)).split(b'\n');
            while let Some(Ok(line)) = lines.next() {
                if line.starts_with(b"Collecting ") {
                    progress.report(Event::Advanced {
                        phase: Phase::Wheels,
                        amount: 1,
                    });
                }
            }
        }
        errors.join().unwrap_or_default()
    });
    let status = child.wait().map_err(WheelError::io("pip did not end"))?;
    Ok(Outcome {
        status,
        messages: String::from_utf8_lossy(&messages).into_owned(),
    })
}
