//! Runs the program as a person would, with a home of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A machine of its own: home, store, no accounts, no settings.
pub(crate) struct Machine {
    home: tempfile::TempDir,
    python: Option<PathBuf>,
    variables: Vec<(String, String)>,
    without: Vec<String>,
}

/// What a finished command left.
pub(crate) struct Finished {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            python: None,
            variables: Vec::new(),
            without: Vec::new(),
        }
    }

    /// Uses this Python for the project.
    pub(crate) fn with_python(mut self, python: impl Into<PathBuf>) -> Self {
        self.python = Some(python.into());
        self
    }

    /// The Python that it uses.
    pub(crate) fn python(&self) -> Option<&Path> {
        self.python.as_deref()
    }

    /// Sets a variable for all commands.
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps what this machine's own environment says about a variable from all commands.
    pub(crate) fn without_variable(mut self, name: &str) -> Self {
        self.without.push(name.to_owned());
        self
    }

    /// A command of this machine.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("TZ", "UTC")
            .env("LANG", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "Test")
            .env("GIT_AUTHOR_EMAIL", "test@example.com")
            .env("GIT_COMMITTER_NAME", "Test")
            .env("GIT_COMMITTER_EMAIL", "test@example.com");
        // How this machine reaches its package index and whom it trusts is not the tests' business.
        for (name, value) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let proxy = text.to_ascii_lowercase().ends_with("_proxy");
            if proxy || text.starts_with("PIP_") || text == "SSL_CERT_FILE" {
                command.env(&name, value);
            }
        }
        for name in &self.without {
            command.env_remove(name);
        }
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
    }

    /// Runs `forebay` with these arguments in `directory`.
    pub(crate) fn forebay<I: AsRef<OsStr>>(
        &self,
        directory: &Path,
        arguments: impl IntoIterator<Item = I>,
    ) -> Finished {
        let mut command = self.command(env!("CARGO_BIN_EXE_forebay"), directory);
        if let Some(python) = &self.python {
            command.arg("--python").arg(python);
        }
        Finished::from(command.args(arguments).output().unwrap())
    }

    /// Every command, with the names before its own, as the help tells them.
    pub(crate) fn commands(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        self.add_commands(&[], &mut found);
        found
    }

    fn add_commands(&self, path: &[&str], found: &mut Vec<Vec<String>>) {
        let help = self
            .forebay(Path::new("/"), [path, &["-h"]].concat())
            .stdout;
        found.push(path.iter().map(|part| (*part).to_owned()).collect());
        let Some((_, list)) = help.split_once("\nCommands:\n") else {
            return;
        };
        for line in list.lines().take_while(|line| line.starts_with("  ")) {
            // A description goes on further to the right.
            if !line.starts_with("   ")
                && let Some(name) = line.split_whitespace().next()
            {
                self.add_commands(&[path, &[name]].concat(), found);
            }
        }
    }

    /// The same, expecting success; gives the JSON document on standard output.
    pub(crate) fn forebay_json<I: AsRef<OsStr>>(
        &self,
        directory: &Path,
        arguments: impl IntoIterator<Item = I>,
    ) -> Value {
        let arguments: Vec<_> = arguments
            .into_iter()
            .map(|a| a.as_ref().to_owned())
            .collect();
        let finished = self.forebay(
            directory,
            arguments
                .iter()
                .map(|a| a.as_os_str())
                .chain([OsStr::new("--json")]),
        );
        assert_eq!(finished.status, 0, "{arguments:?}: {}", finished.stderr);
        serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", finished.stdout))
    }

    /// Runs a program that must succeed; gives its standard output.
    pub(crate) fn run<I: AsRef<OsStr>>(
        &self,
        directory: &Path,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = I>,
    ) -> String {
        let program = program.as_ref();
        let finished = Finished::from(
            self.command(program, directory)
                .args(arguments)
                .output()
                .unwrap_or_else(|error| panic!("{}: {error}", program.display())),
        );
        assert_eq!(
            finished.status,
            0,
            "{}: {}{}",
            program.display(),
            finished.stdout,
            finished.stderr
        );
        finished.stdout
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What `tests/install` has installed. Outside CI a test may do without.
pub(crate) fn installed(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    assert!(
        path.is_some() || std::env::var_os("CI").is_none(),
        "{variable} is not set: run tests/run"
    );
    if path.is_none() {
        eprintln!("skipped: {variable} is not set; tests/run installs what is needed");
    }
    path
}

/// Copies a folder.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(target).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
