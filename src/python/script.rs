//! Runs an embedded script in somebody's Python and takes one document back.
//!
//! The answer comes through a file of its own, because the code that the
//! script loads may print on standard output.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::PythonError;

/// How much of what a failed script printed is shown, in bytes from its end.
const SHOWN_OUTPUT: u64 = 4096;
/// No answer is longer than this many bytes.
const LONGEST_ANSWER: u64 = 256 << 20;

/// Runs `source` with `interpreter` in `directory`.
///
/// The script finds `request` as JSON in the file `sys.argv[1]` and writes its
/// JSON answer to the file `sys.argv[2]`. It inherits this process's environment,
/// changed by `variables`; standard input is empty.
pub(crate) fn run_script<Answer: DeserializeOwned>(
    interpreter: &Path,
    source: &str,
    request: &impl Serialize,
    directory: &Path,
    variables: &[(&str, &str)],
) -> Result<Answer, PythonError> {
    let context = |what: &'static str| {
        let executable = interpreter.to_owned();
        move |source: std::io::Error| PythonError::Run {
            executable,
            what,
            source,
        }
    };
    let scratch = tempfile::Builder::new()
        .prefix("forebay-python-")
        .tempdir()
        .map_err(context("making a temporary directory"))?;
    let script = scratch.path().join("script.py");
    let request_path = scratch.path().join("request.json");
    let answer_path = scratch.path().join("answer.json");
    std::fs::write(&script, source).map_err(context("writing the script"))?;
    let request = serde_json::to_vec(request).map_err(|source| PythonError::Answer {
        executable: interpreter.to_owned(),
        source,
    })?;
    std::fs::write(&request_path, request).map_err(context("writing the script's request"))?;
    let mut output = tempfile::tempfile().map_err(context("making a temporary file"))?;
    let handle = |file: &std::fs::File| file.try_clone().map(Stdio::from);

    log::debug!("running {}", interpreter.display());
    let status = Command::new(interpreter)
        .arg(&script)
        .arg(&request_path)
        .arg(&answer_path)
        .current_dir(directory)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(handle(&output).map_err(context("redirecting its output"))?)
        .stderr(handle(&output).map_err(context("redirecting its output"))?)
        .status()
        .map_err(context("starting it"))?;

    let mut answer = Vec::new();
    match std::fs::File::open(&answer_path) {
        Ok(file) => file
            .take(LONGEST_ANSWER)
            .read_to_end(&mut answer)
            .map_err(context("reading its answer"))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let output = tail(&mut output).map_err(context("reading what it printed"))?;
            return Err(no_answer(interpreter, status, output));
        }
        Err(error) => return Err(context("reading its answer")(error)),
    };
    serde_json::from_slice(&answer).map_err(|source| PythonError::Answer {
        executable: interpreter.to_owned(),
        source,
    })
}

fn no_answer(interpreter: &Path, status: ExitStatus, output: String) -> PythonError {
    PythonError::NoAnswer {
        executable: interpreter.to_owned(),
        status,
        output,
    }
}

fn tail(output: &mut std::fs::File) -> std::io::Result<String> {
    let length = output.seek(SeekFrom::End(0))?;
    output.seek(SeekFrom::Start(length.saturating_sub(SHOWN_OUTPUT)))?;
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
