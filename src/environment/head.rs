//! The one mutable object of an environment. Every write of it is a
//! compare-and-swap on its storage generation.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::EnvironmentError;
use super::key::EnvironmentKey;
use super::readable::{parse_readable, refuse_newer};
use super::record::{RecordReference, check_number};
use crate::bucket::{Listing, nonce};
use crate::oci::Sha256Digest;
use crate::project::{EnvironmentName, ProjectName};
use forebay_store::ObjectDigest;

/// What `HEAD.json` holds (`schema/head.schema.json`).
///
/// | `live` | `applying` | meaning |
/// | --- | --- | --- |
/// | absent | absent | empty: the first deploy was aborted |
/// | absent | present | the first deploy is being applied |
/// | present | absent | committed |
/// | present | present | a change of what is live is being applied |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of this format; see [`Head::SCHEMA`].
    pub schema: u32,
    /// Whose it is.
    pub project: ProjectName,
    /// Which environment.
    pub environment: EnvironmentName,
    /// The generation that was last committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveGeneration>,
    /// The change that is being made to `dags/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applying: Option<Intent>,
    /// Who wrote HEAD last.
    pub written_by: String,
    /// Different in every write, so that no state of HEAD ever comes back.
    pub nonce: String,
}

/// A committed generation, with all that an unchanged deploy compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveGeneration {
    /// Number and record.
    #[serde(flatten)]
    pub reference: RecordReference,
    /// The environment's image.
    pub image: Sha256Digest,
    /// See [`GenerationRecord::state`](super::GenerationRecord::state).
    pub state: ObjectDigest,
    /// The digest of the whole listing of `dags/` by which it was verified: see [`listing_digest`].
    pub listing: ObjectDigest,
    /// Whether files are there that the next deploy deletes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Whether the recorded commit does not have all that is live.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dirty: bool,
    /// The storage generations of the record's DAG files, in the order of their keys: only
    /// objects that are still at these are ours. Absent where that was not noted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<u64>,
}

/// A change that has begun. Whoever finds it after its lease has run out
/// carries it to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The generation being applied, or given up.
    #[serde(flatten)]
    pub reference: RecordReference,
    /// To that generation, or away from it.
    pub direction: Direction,
    /// Who applies it.
    pub holder: String,
    /// For how many seconds after HEAD's last write nobody else may take
    /// over, by the bucket server's clock. Zero once the holder has given up.
    pub lease_seconds: u64,
}

/// Where an intent leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The generation becomes live.
    Forward,
    /// What was live before stays live.
    Back,
}

impl Head {
    /// The version that we write.
    pub const SCHEMA: u32 = 1;

    pub(super) fn new(
        environment: &EnvironmentKey,
        live: Option<LiveGeneration>,
        applying: Option<Intent>,
        written_by: &str,
    ) -> Self {
        Self {
            schema: Self::SCHEMA,
            project: environment.project.clone(),
            environment: environment.environment.clone(),
            live,
            applying,
            written_by: written_by.to_owned(),
            nonce: nonce(),
        }
    }

    pub(super) fn parse(
        bytes: &[u8],
        environment: &EnvironmentKey,
        place: &str,
    ) -> Result<Self, EnvironmentError> {
        let head: Self = parse_readable(place, bytes, Self::SCHEMA)?;
        if (&head.project, &head.environment) != (&environment.project, &environment.environment) {
            return Err(EnvironmentError::Malformed {
                key: place.to_owned(),
                problem: "it belongs to another project or environment".to_owned(),
            });
        }
        let live = head.live.as_ref().map(|live| live.reference);
        let applying = head.applying.as_ref().map(|intent| intent.reference);
        for reference in [live, applying].into_iter().flatten() {
            check_number(reference.generation, place)?;
        }
        Ok(head)
    }

    /// Nothing is changed that a newer program has recorded.
    pub(super) fn refuse_newer(&self) -> Result<(), EnvironmentError> {
        refuse_newer("HEAD.json", self.schema, Self::SCHEMA)
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, EnvironmentError> {
        serde_json::to_vec_pretty(self).map_err(|error| EnvironmentError::Malformed {
            key: "HEAD.json".to_owned(),
            problem: error.to_string(),
        })
    }

    /// The state in words, for whoever lost against it.
    pub(super) fn describe(&self) -> String {
        match (&self.applying, &self.live) {
            (Some(intent), _) => format!(
                "generation {} is being applied",
                intent.reference.generation
            ),
            (None, Some(live)) => format!("generation {} is live", live.reference.generation),
            (None, None) => "nothing is live".to_owned(),
        }
    }
}

impl Intent {
    /// How long the lease still runs; `None` once others may take over. Both
    /// times are the server's.
    pub(super) fn remaining(&self, updated: Timestamp, server_time: Timestamp) -> Option<Duration> {
        let lease = SignedDuration::try_from(Duration::from_secs(self.lease_seconds))
            .unwrap_or(SignedDuration::MAX);
        let elapsed = server_time
            .duration_since(updated)
            .max(SignedDuration::ZERO);
        let left = lease.saturating_sub(elapsed);
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    }
}

/// The BLAKE3 of a listing: for each object its key ended by a zero byte, size
/// and CRC32C as little-endian numbers of 8 and 4 bytes (0 if there is none), and
/// without a CRC32C the MD5, if there is one.
pub fn listing_digest(listing: &Listing) -> ObjectDigest {
    let mut bytes = Vec::new();
    for object in &listing.objects {
        bytes.extend_from_slice(object.key.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&object.size.to_le_bytes());
        bytes.extend_from_slice(&object.crc32c.unwrap_or_default().to_le_bytes());
        if let (None, Some(md5)) = (object.crc32c, object.md5) {
            bytes.extend_from_slice(&md5);
        }
    }
    ObjectDigest::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_judged_by_the_servers_times_alone() {
        let intent = |lease_seconds| Intent {
            reference: RecordReference {
                generation: 1,
                record: ObjectDigest::of(b""),
            },
            direction: Direction::Forward,
            holder: "somebody".to_owned(),
            lease_seconds,
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let left = |lease, updated, now| intent(lease).remaining(at(updated), at(now));
        assert_eq!(left(60, 100, 100), Some(Duration::from_secs(60)));
        assert_eq!(left(60, 100, 159), Some(Duration::from_secs(1)));
        assert_eq!(left(60, 100, 160), None);
        // A Date header has whole seconds, so it may seem to lie before the write.
        assert_eq!(left(60, 100, 99), Some(Duration::from_secs(60)));
        assert_eq!(left(0, 100, 100), None);
        assert!(left(u64::MAX, 100, 200).is_some());
    }
}
