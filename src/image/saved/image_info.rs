//! `imageinfo-VERSION.toml`: what BigFlow leaves in `.image/` of an image that it has not
//! exported, but left in Docker.

use std::path::Path;

use serde::Deserialize;

use super::SavedImageError;
use crate::oci::Sha256Digest;

/// Bytes that such a file may have.
const MAX_SIZE: u64 = 64 << 10;

/// The file's members that matter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ImageInfo {
    /// The version that the image was built from.
    pub project_version: String,
    /// The digest of its configuration.
    pub docker_image_id: Sha256Digest,
}

/// Whether a path is such a file's, as BigFlow tells it.
pub fn is_image_info(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "toml")
}

impl ImageInfo {
    /// Reads the file.
    ///
    /// # Errors
    /// See [`SavedImageError`].
    pub fn read(path: &Path) -> Result<Self, SavedImageError> {
        let read = || {
            let unreadable = |source| SavedImageError::Read { source };
            if path.metadata().map_err(unreadable)?.len() > MAX_SIZE {
                return Err(SavedImageError::malformed(
                    "it is too long for BigFlow's image info",
                ));
            }
            let text = std::fs::read_to_string(path).map_err(unreadable)?;
            toml::from_str(&text).map_err(|error| {
                SavedImageError::malformed(format!(
                    "it is no image info of BigFlow's: {}",
                    error.message()
                ))
            })
        };
        read().map_err(|error: SavedImageError| error.within(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bigflow_writes_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("imageinfo-0.1.0.toml");
        let id = Sha256Digest::of(b"config");
        let text = format!(
            "\n# This file is a marker indicating that docker image\n# was built by bigflow but wasn't exported to a tar.\n\
             created = 2026-01-02T03:04:05.678901\nproject_version = \"0.1.0\"\nproject_name = \"flow\"\n\
             docker_image_id = \"{id}\"\ndocker_image_tag = \"registry.test/flow:0.1.0\"\n"
        );
        std::fs::write(&path, text).unwrap();
        assert!(is_image_info(&path));
        let info = ImageInfo::read(&path).unwrap();
        assert_eq!(
            (info.project_version.as_str(), info.docker_image_id),
            ("0.1.0", id)
        );
        for text in ["", "project_version = 1", "docker_image_id = 'sha256:x'"] {
            std::fs::write(&path, text).unwrap();
            let error = ImageInfo::read(&path).unwrap_err();
            let why = std::error::Error::source(&error).unwrap().to_string();
            assert!(why.contains("image info"), "{why}");
        }
    }
}
