//! Tries out, without touching anything that is live, what a deploy relies on.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::key::DAGS_PREFIX;
use super::{Environment, EnvironmentError};
use crate::bucket::{WriteCondition, nonce};
use crate::oci::{BlobSource, BytesBlob, MediaType};
use crate::registry::ManifestName;

/// A name in the folder of DAG files that stops Composer's synchronisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenName {
    /// The key.
    pub key: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Environment {
    /// Writes, reads and deletes an object beside the environment's records, outside `dags/`.
    /// Gives the bucket server's time.
    ///
    /// # Errors
    /// The first right that is missing, or whatever else stands in the way.
    pub async fn probe_bucket(&self) -> Result<Timestamp, EnvironmentError> {
        let head = self.key.head()?;
        let folder = head.as_str().trim_end_matches("HEAD.json");
        let key = format!("{folder}probe-{}", nonce()).parse()?;
        let bytes = Bytes::from_static(b"written by `forebay doctor`, which deletes it again\n");
        let written = self
            .bucket
            .write(&key, bytes.clone(), WriteCondition::Absent)
            .await?;
        let read = self.bucket.read(&key).await?;
        self.bucket.delete(&key, written.generation).await?;
        match read {
            Some(read) if read.bytes == bytes => Ok(read.server_time),
            _ => Err(EnvironmentError::LostObject {
                what: key.to_string(),
            }),
        }
    }

    /// Sends a blob of two bytes to the registry, and reads what is not there.
    ///
    /// # Errors
    /// The registry's.
    pub async fn probe_registry(&self) -> Result<(), EnvironmentError> {
        let tag = "forebay-doctor".parse()?;
        self.registry
            .manifest_descriptor(&ManifestName::Tag(tag))
            .await?;
        let media_type = MediaType::new(MediaType::OCI_CONFIG);
        let blob: Arc<dyn BlobSource> = Arc::new(BytesBlob::new(media_type, "{}"));
        self.registry.put_blob(&blob, &[]).await?;
        Ok(())
    }

    /// Objects in `dags/`, anybody's, with names that stop Composer's synchronisation of them all.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn broken_names(&self) -> Result<Vec<BrokenName>, EnvironmentError> {
        let listing = self.bucket.list(DAGS_PREFIX).await?;
        Ok(broken(
            listing.objects.iter().map(|object| object.key.as_str()),
        ))
    }
}

fn broken<'a>(keys: impl Iterator<Item = &'a str> + Clone) -> Vec<BrokenName> {
    let all: BTreeSet<&str> = keys.clone().collect();
    let problem = |key: &str| {
        let folders = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        if key.split('/').any(|part| part == "." || part == "..") {
            Some("it has a part . or ..")
        } else if key.contains("//") {
            Some("it has two slashes in a row")
        } else if folders.split('/').any(|part| part.ends_with(".py")) {
            Some("it is in a folder that is called like a Python file")
        } else if key.ends_with('/') && all.contains(key.trim_end_matches('/')) {
            Some("it is both a folder and a file")
        } else {
            None
        }
    };
    keys.filter_map(|key| {
        Some(BrokenName {
            key: key.to_owned(),
            problem: problem(key)?,
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_break_composers_synchronisation_are_found() {
        let keys = [
            "dags/",
            "dags/a.py",
            "dags/team/",
            "dags/team/b.py",
            "dags//c.py",
            "dags/./d.py",
            "dags/e.py/f.py",
            "dags/g",
            "dags/g/",
        ];
        let found = broken(keys.into_iter());
        let found: Vec<_> = found.iter().map(|name| name.key.as_str()).collect();
        assert_eq!(
            found,
            ["dags//c.py", "dags/./d.py", "dags/e.py/f.py", "dags/g/"]
        );
    }
}
