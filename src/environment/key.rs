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

/// The highest number of a generation: eight digits, as in its key.
pub(super) const LAST_GENERATION: u64 = 99_999_999;

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

    /// What the keys of all that is the project's start with.
    pub fn project_prefix(&self) -> String {
        format!("forebay/v1/{}/", self.project)
    }

    /// What the keys of all records start with; a number follows.
    pub fn generations_prefix(&self) -> String {
        format!("{}{}/generations/", self.project_prefix(), self.environment)
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

    /// The tag that keeps a generation's image from being cleaned up:
    /// `forebay-<project>_<environment>-<number>`.
    ///
    /// It names the project because several projects may push to one
    /// repository, where one's tag must not take another's from its image. The
    /// `_`, which no normalised project's name has, keeps `a-b` in `c` and `a`
    /// in `b-c` apart. Where that would be too long, or not clear, the names
    /// are cut and followed by the first 16 digits of their BLAKE3.
    ///
    /// # Errors
    /// Never for numbers of up to eight digits.
    pub fn retention_tag(&self, number: u64) -> Result<Tag, ParseReferenceError> {
        // Tags have 128 characters; `-`, a number and `.`, a position follow.
        const LONGEST: usize = 112;
        const CUT: usize = 95;
        let (project, environment) = (self.project.as_str(), self.environment.as_str());
        let mut names = format!("forebay-{project}_{environment}");
        if names.len() > LONGEST || project.contains('_') {
            let digest = ObjectDigest::of(format!("{project}\0{environment}").as_bytes());
            names = names.chars().take(CUT).collect();
            names.push('_');
            names.extend(digest.to_string().chars().take(16));
        }
        format!("{names}-{number}").parse()
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
        assert_eq!(
            key.retention_tag(42).unwrap().as_str(),
            "forebay-hello_dev-42"
        );
        let digest = ObjectDigest::of(b"");
        assert_eq!(
            key.object(&digest).unwrap().as_str(),
            format!("forebay/v1/hello/objects/{digest}")
        );
    }

    #[test]
    fn no_two_environments_share_a_retention_tag() {
        let long = |last: &str| format!("{}{last}", "x".repeat(99));
        let environment = "e".repeat(64);
        let names = [
            ("a-b".to_owned(), "c"),
            ("a".to_owned(), "b-c"),
            ("a".to_owned(), "b_c"),
            ("a_b".to_owned(), "c"),
            (long("1"), "dev"),
            (long("2"), "dev"),
            (long("1"), environment.as_str()),
            (long("2"), environment.as_str()),
        ];
        let tags = names.iter().map(|(project, environment)| {
            let key = EnvironmentKey {
                project: project.parse().unwrap(),
                environment: environment.parse().unwrap(),
            };
            let tag = key.retention_tag(LAST_GENERATION).unwrap().to_string();
            format!("{tag}.9").parse::<Tag>().unwrap().to_string()
        });
        let tags: std::collections::BTreeSet<_> = tags.collect();
        assert_eq!(tags.len(), names.len(), "{tags:?}");
    }
}
