//! What the system says of a file, without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// A time that the file system has given a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Time {
    /// Seconds since 1970.
    pub(super) seconds: i64,
    /// And nanoseconds.
    pub(super) nanoseconds: u32,
}

impl Time {
    /// When the file's bytes were last written, or said to be.
    pub(super) fn modified(metadata: &Metadata) -> Self {
        Self::new(metadata.mtime(), metadata.mtime_nsec())
    }

    /// What the system's clock says, which is never behind the one that stamps files.
    pub(super) fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        Self {
            seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: now.subsec_nanos(),
        }
    }

    fn new(seconds: i64, nanoseconds: i64) -> Self {
        Self {
            seconds,
            nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
        }
    }
}

/// What must be equal for a file to be taken as unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) size: u64,
    pub(super) modified: Time,
    /// The last change of bytes or metadata. No program can set it back.
    pub(super) changed: Time,
    pub(super) inode: u64,
    pub(super) device: u64,
}

impl Stat {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            modified: Time::modified(metadata),
            changed: Time::new(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    /// The later of the two times.
    pub(super) fn latest(&self) -> Time {
        self.modified.max(self.changed)
    }

    /// Whether the file could have been edited after a scan at `time` read it, without any
    /// of this being different.
    pub(super) fn is_racy(&self, time: Time) -> bool {
        let mut latest = self.latest();
        if self.changed.nanoseconds == 0 {
            // A file system that knows whole seconds only, or even seconds (FAT).
            latest.seconds = latest.seconds.saturating_add(2);
        }
        latest >= time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(modified: (i64, u32), changed: (i64, u32)) -> Stat {
        let time = |(seconds, nanoseconds)| Time {
            seconds,
            nanoseconds,
        };
        Stat {
            size: 1,
            modified: time(modified),
            changed: time(changed),
            inode: 1,
            device: 1,
        }
    }

    #[test]
    fn what_is_not_older_than_the_scan_is_racy() {
        let scan = Time {
            seconds: 100,
            nanoseconds: 500,
        };
        assert!(!stat((99, 1), (100, 499)).is_racy(scan));
        assert!(stat((99, 1), (100, 500)).is_racy(scan));
        assert!(stat((100, 500), (99, 1)).is_racy(scan));
        assert!(stat((2_000_000_000, 0), (99, 1)).is_racy(scan));
        // Without nanoseconds, "100" may have been 101.9.
        assert!(stat((98, 0), (98, 0)).is_racy(Time {
            seconds: 100,
            nanoseconds: 0
        }));
        assert!(!stat((97, 0), (97, 0)).is_racy(scan));
    }
}
