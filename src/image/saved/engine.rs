//! The only way to an image that was left in a container engine: having it saved.

use std::path::Path;
use std::process::{Command, Stdio};

use super::SavedImageError;
use crate::http::tidy;
use crate::oci::Sha256Digest;

/// The engines, as BigFlow's users have them.
const ENGINES: [&str; 2] = ["docker", "podman"];
/// Characters of an engine's complaint that are shown.
const MAX_COMPLAINT: usize = 300;

/// Has the first engine that is installed save the image with this id to a file.
///
/// # Errors
/// [`SavedImageError::Engine`].
pub fn save_from_engine(id: &Sha256Digest, file: &Path) -> Result<(), SavedImageError> {
    let failed = |problem: String| SavedImageError::Engine {
        id: id.to_string(),
        problem,
    };
    for engine in ENGINES {
        let output = Command::new(engine)
            .args(["save", "-o"])
            .arg(file)
            .arg(id.hex())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let complaint = tidy(&String::from_utf8_lossy(&output.stderr), MAX_COMPLAINT);
                return Err(failed(format!("{engine} says: {complaint}")));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(format!("{engine} cannot be started: {error}"))),
        }
    }
    Err(failed("neither docker nor podman is installed".to_owned()))
}
