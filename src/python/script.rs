//! Runs an embedded script in somebody's Python and takes one document back.
//!
//! The answer comes through a file of its own, because the code that the
//! script loads may print on standard output.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::PythonError;

/// How much of what a failed script printed is shown, in bytes from its end.
const SHOWN_OUTPUT: u64 = 4096;
/// No answer is longer than this many bytes.
const LONGEST_ANSWER: u64 = 256 << 20;

/// Runs `source` with `interpreter` in `directory`, and waits for its answer: see
/// [`StartedScript::start`].
pub(crate) fn run_script<Answer: DeserializeOwned>(
    interpreter: &Path,
    source: &str,
    request: &impl Serialize,
    directory: &Path,
    variables: &[(&str, &str)],
) -> Result<Answer, PythonError> {
    StartedScript::start(interpreter, source, request, directory, variables)?.finish()
}

/// A script that runs. It ends with this.
#[derive(Debug)]
pub(crate) struct StartedScript {
    interpreter: PathBuf,
    child: Child,
    scratch: TempDir,
    output: File,
}

impl StartedScript {
    /// The script finds `request` as JSON in the file `sys.argv[1]` and writes its
    /// JSON answer to the file `sys.argv[2]`. It inherits this process's environment,
    /// changed by `variables`; standard input is empty.
    pub(crate) fn start(
        interpreter: &Path,
        source: &str,
        request: &impl Serialize,
        directory: &Path,
        variables: &[(&str, &str)],
    ) -> Result<Self, PythonError> {
        let context = |what| failed(interpreter, what);
        let scratch = tempfile::Builder::new()
            .prefix("forebay-python-")
            .tempdir()
            .map_err(context("making a temporary directory"))?;
        let script = scratch.path().join("script.py");
        let request_path = scratch.path().join("request.json");
        std::fs::write(&script, source).map_err(context("writing the script"))?;
        let request = serde_json::to_vec(request).map_err(|source| PythonError::Answer {
            executable: interpreter.to_owned(),
            source,
        })?;
        std::fs::write(&request_path, request).map_err(context("writing the script's request"))?;
        let output = tempfile::tempfile().map_err(context("making a temporary file"))?;
        let handle = || output.try_clone().map(Stdio::from);

        log::debug!("running {}", interpreter.display());
        let child = Command::new(interpreter)
            .arg(&script)
            .arg(&request_path)
            .arg(answer_path(&scratch))
            .current_dir(directory)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(handle().map_err(context("redirecting its output"))?)
            .stderr(handle().map_err(context("redirecting its output"))?)
            .spawn()
            .map_err(context("starting it"))?;
        Ok(Self {
            interpreter: interpreter.to_owned(),
            child,
            scratch,
            output,
        })
    }

    /// Waits for the answer.
    pub(crate) fn finish<Answer: DeserializeOwned>(mut self) -> Result<Answer, PythonError> {
        let status = self.child.wait();
        let context = |what| failed(&self.interpreter, what);
        let status = status.map_err(context("waiting for it"))?;
        let mut answer = Vec::new();
        match File::open(answer_path(&self.scratch)) {
            Ok(file) => file
                .take(LONGEST_ANSWER)
                .read_to_end(&mut answer)
                .map_err(context("reading its answer"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let output = tail(&mut self.output).map_err(context("reading what it printed"))?;
                return Err(PythonError::NoAnswer {
                    executable: self.interpreter.clone(),
                    status,
                    output,
                });
            }
            Err(error) => return Err(context("reading its answer")(error)),
        };
        serde_json::from_slice(&answer).map_err(|source| PythonError::Answer {
            executable: self.interpreter.clone(),
            source,
        })
    }
}

impl Drop for StartedScript {
    /// Nobody waits for its answer any more. Does nothing to one that has ended.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer_path(scratch: &TempDir) -> PathBuf {
    scratch.path().join("answer.json")
}

fn failed(interpreter: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> PythonError {
    let executable = interpreter.to_owned();
    move |source| PythonError::Run {
        executable,
        what,
        source,
    }
}

fn tail(output: &mut File) -> std::io::Result<String> {
    let length = output.seek(SeekFrom::End(0))?;
    output.seek(SeekFrom::Start(length.saturating_sub(SHOWN_OUTPUT)))?;
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_ends_when_nobody_waits_for_it() {
        let python = Path::new("python3");
        let source = "import time\ntime.sleep(600)\n";
        let started = StartedScript::start(python, source, &(), Path::new("/"), &[]).unwrap();
        let process = PathBuf::from(format!("/proc/{}", started.child.id()));
        assert!(process.exists());
        drop(started);
        assert!(!process.exists());
    }
}
