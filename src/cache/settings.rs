//! Who is believed, and who may write.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::key::{SigningKey, TrustedKey};
use super::location::CacheLocation;
use crate::bucket::BucketLocation;

/// What a user says about caches.
#[derive(Debug, Default)]
pub struct CacheOptions {
    /// The caches, in the order in which they are asked. The first is written.
    pub locations: Vec<CacheLocation>,
    /// Whose entries count.
    pub trusted: Vec<TrustedKey>,
    /// What entries are signed with.
    pub signing_key: Option<SigningKey>,
    /// Entries count without a signature, whoever wrote them.
    pub unsigned: bool,
    /// The user asks for writing.
    pub write: bool,
    /// Whether a CI service runs us.
    pub is_ci: bool,
}

/// What is believed of one cache, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Signed entries alone.
    Signed,
    /// Unsigned entries too.
    Unsigned,
    /// Nothing: no key is trusted, and the cache is not the user's own folder.
    Nothing,
}

impl Trust {
    /// `signed`, `unsigned` or `nothing`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Unsigned => "unsigned",
            Self::Nothing => "nothing",
        }
    }
}

impl CacheOptions {
    /// What counts in a cache. `store` is a folder of the user's.
    pub fn trust(&self, location: &CacheLocation, store: &Path) -> Trust {
        match &location.bucket {
            _ if self.unsigned => Trust::Unsigned,
            _ if !self.trusted.is_empty() || self.signing_key.is_some() => Trust::Signed,
            BucketLocation::Directory { path } if is_own(path, store) => Trust::Unsigned,
            _ => Trust::Nothing,
        }
    }

    /// Whether what was built is brought to the cache: asked for, or, in CI, possible.
    pub fn writes(&self, trust: Trust) -> bool {
        match trust {
            Trust::Signed => self.signing_key.is_some(),
            Trust::Unsigned => self.write || self.is_ci || self.signing_key.is_some(),
            Trust::Nothing => false,
        }
    }
}

/// Whether a folder is as safe as the store: it is the same user's, and nobody else may write
/// to it. One that is not there yet will be.
fn is_own(folder: &Path, store: &Path) -> bool {
    let (Ok(store), folder) = (std::fs::metadata(store), std::fs::metadata(folder)) else {
        return false;
    };
    match folder {
        Ok(folder) => folder.uid() == store.uid() && folder.mode() & 0o022 == 0,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn without_keys_only_ones_own_folder_counts() {
        let store = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let own: CacheLocation = format!("file://{}", folder.path().display())
            .parse()
            .unwrap();
        let remote: CacheLocation = "gs://team-bucket".parse().unwrap();
        let mut options = CacheOptions::default();
        assert_eq!(options.trust(&own, store.path()), Trust::Unsigned);
        assert_eq!(options.trust(&remote, store.path()), Trust::Nothing);
        assert!(!options.writes(Trust::Unsigned) && !options.writes(Trust::Nothing));
        options.write = true;
        assert!(options.writes(Trust::Unsigned) && !options.writes(Trust::Signed));

        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o775)).unwrap();
        assert_eq!(options.trust(&own, store.path()), Trust::Nothing);
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();

        // Whoever has keys wants them looked at, everywhere.
        options.signing_key = Some(SigningKey::generate("main".parse().unwrap()).unwrap());
        assert_eq!(options.trust(&own, store.path()), Trust::Signed);
        assert_eq!(options.trust(&remote, store.path()), Trust::Signed);
        assert!(options.writes(Trust::Signed));
    }
}
