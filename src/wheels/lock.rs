//! What requirements came to, in words that any machine can fetch again.

use forebay_store::Sha256Digest;
use serde::{Deserialize, Serialize};

use super::WheelFileName;

/// One distribution, by the digest of what the index serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedDistribution {
    /// The wheel's file name.
    pub file: WheelFileName,
    /// The wheel's SHA-256.
    pub sha256: Sha256Digest,
    /// The source distribution that the wheel was built from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<LockedSource>,
}

/// A source distribution.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedSource {
    /// Its file name.
    pub file: String,
    /// Its SHA-256.
    pub sha256: Sha256Digest,
}

impl LockedDistribution {
    /// A line of a requirements file that nothing else satisfies.
    pub(super) fn pin(&self) -> String {
        let digest = match &self.source {
            Some(source) => source.sha256,
            None => self.sha256,
        };
        format!(
            "{}=={} --hash={}",
            self.file.distribution(),
            self.file.version(),
            digest
        )
    }
}
