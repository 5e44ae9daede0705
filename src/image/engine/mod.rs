//! Container engines, for the lines of a Dockerfile that need a container: docker, podman
//! or buildah, whichever is there. They are run as programs, get what they start from as
//! a file, and give what they made as a file: no login and no registry of theirs counts.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use super::ImageError;
use crate::progress::{Event, Phase, Progress};
use crate::wheels::{Platform, strip_credentials};

mod layers;

pub use layers::{ContainerRequest, engine_layers, known_layers, make_layers, step_key};

/// Bytes of an engine's messages that are kept.
const MAX_MESSAGES: usize = 256 << 10;
/// Lines of them that an error shows.
const SHOWN_LINES: usize = 20;

/// A program that runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineProgram {
    /// Docker, with BuildKit or its classic builder.
    Docker,
    /// Podman.
    Podman,
    /// Buildah.
    Buildah,
}

impl EngineProgram {
    const ALL: [Self; 3] = [Self::Docker, Self::Podman, Self::Buildah];

    /// Its command.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Buildah => "buildah",
        }
    }

    /// The version of a working engine. Docker's client alone does not work.
    fn version(self) -> Option<String> {
        let arguments: &[&str] = match self {
            Self::Docker => &["version", "--format", "{{.Server.Version}}"],
            Self::Podman => &["version", "--format", "{{.Version}}"],
            Self::Buildah => &["--version"],
        };
        let output = Command::new(self.as_str())
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut words = text.split_whitespace();
        words
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            .map(str::to_owned)
    }
}

/// An engine that works here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// The program.
    pub program: EngineProgram,
    /// Its version, as it says.
    pub version: String,
}

/// What an engine is given, and what it has to give.
struct Job<'a> {
    /// The image to start from, and its name in there; none for `scratch`.
    below: Option<&'a Path>,
    below_name: &'a str,
    dockerfile: &'a Path,
    context: &'a Path,
    /// Where the result goes, and what it is called meanwhile.
    made: &'a Path,
    made_name: &'a str,
    platform: Platform,
    epoch: i64,
    /// The user's own arguments of `build`.
    arguments: &'a [String],
    /// Whether the engine's own cache is left aside.
    fresh: bool,
}

impl Engine {
    /// The first engine that works, or `program` if it does.
    pub fn find(program: Option<EngineProgram>) -> Option<Self> {
        let works = |program: EngineProgram| {
            let version = program.version()?;
            Some(Self { program, version })
        };
        match program {
            Some(program) => works(program),
            None => EngineProgram::ALL.into_iter().find_map(works),
        }
    }

    /// Loads the image below, builds on it, and saves the result. What the engine keeps of
    /// both is removed again, also after a failure.
    fn build(&self, job: &Job<'_>, progress: &dyn Progress) -> Result<(), ImageError> {
        let outcome = self.load_build_save(job, progress);
        let names = [job.made_name, job.below_name];
        let force: &[&str] = match self.program {
            EngineProgram::Buildah => &["rmi", "--force"],
            _ => &["image", "rm", "--force"],
        };
        for name in names {
            // What is not there cannot be removed; that is no failure.
            let _ = self.run(self.command().args(force).arg(name), progress);
        }
        outcome
    }

    fn load_build_save(&self, job: &Job<'_>, progress: &dyn Progress) -> Result<(), ImageError> {
        if let Some(below) = job.below {
            let mut load = self.command();
            match self.program {
                EngineProgram::Buildah => load
                    .arg("pull")
                    .arg(format!("docker-archive:{}", below.display())),
                _ => load.args(["load", "--input"]).arg(below),
            };
            self.run(&mut load, progress)?;
        }
        self.run(&mut self.build_command(job), progress)?;
        let mut save = self.command();
        match self.program {
            EngineProgram::Docker => save
                .args(["save", "--output"])
                .arg(job.made)
                .arg(job.made_name),
            EngineProgram::Podman => save
                .args(["save", "--format", "docker-archive", "--output"])
                .arg(job.made)
                .arg(job.made_name),
            EngineProgram::Buildah => save
                .args(["push", job.made_name])
                .arg(format!("docker-archive:{}", job.made.display())),
        };
        self.run(&mut save, progress)
    }

    fn build_command(&self, job: &Job<'_>) -> Command {
        let mut build = self.command();
        build.arg("build");
        match self.program {
            EngineProgram::Docker => {
                build
                    // The builder that sees what was loaded, with nothing beside the image.
                    .env_remove("BUILDX_BUILDER")
                    .env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
                    .env("SOURCE_DATE_EPOCH", job.epoch.to_string());
            }
            EngineProgram::Podman | EngineProgram::Buildah => {
                build
                    .arg("--pull=false")
                    // OCI's configuration has no SHELL.
                    .args(["--format", "docker"])
                    .arg(format!("--timestamp={}", job.epoch));
            }
        }
        if job.platform.machine() != std::env::consts::ARCH {
            build.arg(format!("--platform={}", job.platform));
        }
        if job.fresh {
            build.arg("--no-cache");
        }
        build.arg("--tag").arg(job.made_name);
        build.args(job.arguments).arg("--file");
        build.arg(job.dockerfile).arg(job.context);
        build
    }

    fn command(&self) -> Command {
        Command::new(self.program.as_str())
    }

    /// Runs the engine; its messages are kept for an error.
    fn run(&self, command: &mut Command, progress: &dyn Progress) -> Result<(), ImageError> {
        let action = command
            .get_args()
            .next()
            .map(|action| action.to_string_lossy().into_owned())
            .unwrap_or_default();
        let failed = |problem: String| ImageError::Engine {
            command: format!("{} {action}", self.program.as_str()),
            output: problem,
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("it cannot be started: {error}")))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut messages, errors) = std::thread::scope(|scope| {
            let errors = scope.spawn(|| stderr.map(|s| read_messages(s, progress)));
            let output = stdout.map(|s| read_messages(s, progress));
            (
                output.unwrap_or_default(),
                errors.join().ok().flatten().unwrap_or_default(),
            )
        });
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        if status.success() {
            return Ok(());
        }
        messages.push_str(&errors);
        let lines: Vec<&str> = messages.lines().filter(|l| !l.trim().is_empty()).collect();
        let start = lines.len().saturating_sub(SHOWN_LINES);
        let shown = lines.get(start..).unwrap_or_default().join("\n");
        Err(failed(strip_credentials(&shown)))
    }
}

/// Reads an engine's messages, line by line; of very many the last are kept.
fn read_messages(reader: impl Read, progress: &dyn Progress) -> String {
    let mut messages = Vec::new();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(1 << 16).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => messages.extend_from_slice(&line),
        }
        progress.report(Event::Advanced {
            phase: Phase::Engine,
            amount: 1,
        });
        if messages.len() > MAX_MESSAGES {
            messages.drain(..MAX_MESSAGES / 2);
        }
    }
    String::from_utf8_lossy(&messages).into_owned()
}
