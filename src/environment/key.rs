//! Where an environment's state lies in its bucket.

use std::fmt;

use crate::bucket::{InvalidKey, ObjectKey};
use crate::oci::{ParseReferenceError, Tag};
use crate::project::{EnvironmentName, ProjectName};
use forebay_store::ObjectDigest;

/// The folder that Composer reads DAGs from. Nothing outside it is ever changed
/// but our own records.
pub const DAGS_PREFIX: &str = "dags/";

/// Composer's own DAG, which is nobody else's business.
pub const MONITORING_KEY: &str = "dags/airflow_monitoring.py";

/// One environment of one project; several projects share one bucket.
///
/// ```text
/// forebay/v1/<project>/<environment>/HEAD.json                    compare-and-swap
/// forebay/v1/<project>/<environment>/generations/00000042.json    create-only
/// forebay/v1/<project>/objects/<blake3>                           create-only
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnvironmentKey {
    /// The project.
    pub project: ProjectName,
    /// Its environment.
    pub environment: EnvironmentName,
}

impl EnvironmentKey {
    /// The one mutable object.
    ///
    /// # Errors
    /// If the names are too long for a key.
    pub fn head(&self) -> Result<ObjectKey, InvalidKey> {
        format!("forebay/v1/{}/{}/HEAD.json", self.project, self.environment).parse()
    }

    /// A generation's record. Eight digits keep listings in order.
    ///
    /// # Errors
    /// If the names are too long for a key.
    pub fn generation(&self, number: u64) -> Result<ObjectKey, InvalidKey> {
        format!(
            "forebay/v1/{}/{}/generations/{number:08}.json",
            self.project, self.environment
        )
        .parse()
    }

    /// What the keys of all bytes of DAG files start with; a digest follows.
    pub fn objects_prefix(&self) -> String {
        format!("forebay/v1/{}/objects/", self.project)
    }

    /// The bytes of a DAG file.
    ///
    /// # Errors
    /// If the names are too long for a key.
    pub fn object(&self, digest: &ObjectDigest) -> Result<ObjectKey, InvalidKey> {
        format!("{}{digest}", self.objects_prefix()).parse()
    }

    /// The tag that keeps a generation's image from being cleaned up.
    ///
    /// # Errors
    /// If the name is too long for a tag.
    pub fn retention_tag(&self, number: u64) -> Result<Tag, ParseReferenceError> {
        format!("forebay-{}-{number}", self.environment).parse()
    }
}

impl fmt::Display for EnvironmentKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.project, self.environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let key = EnvironmentKey {
            project: "hello".parse().unwrap(),
            environment: "dev".parse().unwrap(),
        };
        assert_eq!(
            key.head().unwrap().as_str(),
            "forebay/v1/hello/dev/HEAD.json"
        );
        assert_eq!(
            key.generation(42).unwrap().as_str(),
            "forebay/v1/hello/dev/generations/00000042.json"
        );
        assert_eq!(key.retention_tag(42).unwrap().as_str(), "forebay-dev-42");
        let digest = ObjectDigest::of(b"");
        assert_eq!(
            key.object(&digest).unwrap().as_str(),
            format!("forebay/v1/hello/objects/{digest}")
        );
    }
}
