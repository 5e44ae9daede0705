//! uv, which resolves for a Python and a platform that the host has not, source
//! distributions included; pip can do that only by wheels.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::pip::{Outcome, run};
use super::{TargetPython, WheelError};
use crate::progress::Progress;

/// Whether uv is there.
pub(super) fn is_there() -> bool {
    let status = Command::new("uv")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Writes everything that `requirements` come to, with versions and hashes, to `pins`. uv's own
/// configuration is looked for in `directory` and above.
/// `variables` are settings that uv has not but pip.
pub(super) fn compile(
    requirements: &[&Path],
    pins: &Path,
    directory: &Path,
    target: &TargetPython,
    variables: &[(String, String)],
    progress: &dyn Progress,
) -> Result<Outcome, WheelError> {
    let TargetPython { major, minor, .. } = target;
    let mut command = Command::new("uv");
    command
        .args(["pip", "compile", "--quiet", "--no-header", "--no-annotate"])
        .args(["--generate-hashes", "--python-version"])
        .arg(format!("{major}.{minor}"))
        .arg("--python-platform")
        .arg(format!("{}-manylinux_2_28", target.platform.machine()))
        .arg("--output-file")
        .arg(pins)
        .args(requirements.iter().map(|file| absolute(file)))
        .current_dir(directory)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    run(&mut command, progress)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
