//! The project's Python: which one it is, what it can import, and how a script
//! is run in it.
//!
//! Starting Python costs more than everything else that an unchanged build
//! does, so what is known about an interpreter is remembered in the store.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

mod compile;
mod find;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod marshal;
mod remember;
mod script;
pub(crate) mod trace;
mod traced;

pub(crate) use compile::Compiler;
pub use compile::{Fingerprint, find_compiler};
pub use find::find;
pub(crate) use remember::{recall, recall_from_anywhere, remember};
pub(crate) use script::{StartedScript, run_script};
pub(crate) use traced::{Traced, TracedScript};

/// A CPython version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PythonVersion {
    /// 3.
    pub major: u8,
    /// For example 11.
    pub minor: u8,
    /// For example 9.
    pub micro: u8,
}

impl fmt::Display for PythonVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// A Python interpreter and what it says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// The real executable, not a shim that looks for one.
    pub executable: PathBuf,
    /// Its version.
    pub version: PythonVersion,
    /// `sysconfig.get_platform()`, for example `linux-x86_64`.
    pub platform: String,
    /// The version of BigFlow that it can import, if it can.
    pub bigflow: Option<String>,
    /// The installed distributions, `name-version`, sorted.
    pub installed: Vec<String>,
}

/// Why a Python could not be found or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PythonError {
    /// There is no file where one was expected.
    #[error("{reason}: there is no Python at {}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// Why there.
        reason: &'static str,
    },
    /// Nothing was found anywhere.
    #[error(
        "no Python was found: there is no active virtual environment, no .venv in the project, and no python3 on PATH"
    )]
    NotFound,
    /// It could not be run, or its files not be written or read.
    #[error("{} cannot be run: {what} failed: {source}", executable.display())]
    Run {
        /// The interpreter.
        executable: PathBuf,
        /// What was being done.
        what: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// It ended before it answered.
    #[error("{} ended ({status}) without an answer{}", executable.display(), printed(output))]
    NoAnswer {
        /// The interpreter.
        executable: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// Modules cannot be compiled for an image.
    #[error("there is no Python {major}.{minor} here{} to compile the image's modules with", if *pinned { " that makes the same bytecode as forebay.lock names," } else { "" })]
    NoCompiler {
        /// 3.
        major: u8,
        /// For example 11.
        minor: u8,
        /// Whether it has to be one that makes the bytecode of the lock file.
        pinned: bool,
    },
    /// What is remembered about interpreters cannot be read or written.
    #[error(transparent)]
    Store(#[from] forebay_store::StoreError),
    /// Its answer was not understood.
    #[error("{} gave an answer that cannot be read: {source}", executable.display())]
    Answer {
        /// The interpreter.
        executable: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

fn printed(output: &str) -> String {
    if output.is_empty() {
        String::new()
    } else {
        format!("; it printed:\n{output}")
    }
}
