//! The names that a project gives: what cannot stand in a bucket key, an image
//! tag and a DAG file cannot be built.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: {rule}")]
pub struct InvalidName {
    text: String,
    kind: &'static str,
    rule: &'static str,
}

/// `first` may start the name, `later` may follow; at most `longest` bytes.
fn check(
    text: &str,
    longest: usize,
    first: fn(u8) -> bool,
    later: fn(u8) -> bool,
) -> Option<String> {
    let bytes = text.as_bytes();
    let valid = bytes.len() <= longest
        && bytes.first().is_some_and(|byte| first(*byte))
        && bytes.iter().skip(1).all(|byte| later(*byte));
    valid.then(|| text.to_owned())
}

const fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

const fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

const fn dotted_word(byte: u8) -> bool {
    word(byte) || byte == b'.'
}

const fn version_character(byte: u8) -> bool {
    dotted_word(byte) || byte == b'+'
}

macro_rules! name {
    ($(#[$documentation:meta])* $name:ident, $kind:literal, $longest:literal, $first:path, $later:path, $rule:literal) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check(text, $longest, $first, $later)
                    .map(Self)
                    .ok_or_else(|| InvalidName {
                        text: text.to_owned(),
                        kind: $kind,
                        rule: $rule,
                    })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A project's name. BigFlow writes `-` for `_` in it: see [`ProjectName::normalised`].
    ProjectName,
    "project name",
    100,
    alphanumeric,
    dotted_word,
    "it has 1 to 100 letters, digits, and . _ -, and starts with a letter or a digit"
);

name!(
    /// The name of a configuration in `deployment_config.py`: `dev`, `prod`.
    EnvironmentName,
    "environment name",
    64,
    alphanumeric,
    dotted_word,
    "it has 1 to 64 letters, digits, and . _ -, and starts with a letter or a digit"
);

name!(
    /// A `bigflow.Workflow`'s id.
    ///
    /// Airflow allows dots too, but `bigflow run --job WORKFLOW.JOB` splits at the only dot.
    WorkflowId,
    "workflow id",
    150,
    word,
    word,
    "Airflow and `bigflow run --job WORKFLOW.JOB` take 1 to 150 letters, digits, _ and - (no dot, no space)"
);

name!(
    /// The id of a job in its workflow; with `-` for `_` it is Airflow's task id.
    JobId,
    "job id",
    150,
    word,
    word,
    "Airflow and `bigflow run --job WORKFLOW.JOB` take 1 to 150 letters, digits, _ and - (no dot, no space)"
);

name!(
    /// A project's version, as BigFlow derives it from git. A label, never content.
    Version,
    "version",
    128,
    alphanumeric,
    version_character,
    "it has 1 to 128 letters, digits, and . _ - +, and starts with a letter or a digit"
);

impl ProjectName {
    /// The name as BigFlow uses it: every `_` is a `-`.
    pub fn normalised(text: &str) -> Result<Self, InvalidName> {
        text.replace('_', "-").parse()
    }
}

impl Version {
    /// The image tag that BigFlow derives from a version: `+` is not allowed in tags.
    pub fn image_tag(&self) -> String {
        self.0.replace('+', "-")
    }

    /// The version as it stands in DAG ids: `.`, `-` and `+` become `_`.
    pub fn in_dag_id(&self) -> String {
        self.0.replace(['.', '-', '+'], "_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_break_a_key_or_a_tag_cannot_be_built() {
        for text in ["dev", "prod-2", "a.b", "Prod_EU"] {
            assert_eq!(text.parse::<EnvironmentName>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", "-a", "a/b", "a b", "é", &"x".repeat(65)] {
            assert!(text.parse::<EnvironmentName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn ids_that_bigflow_run_cannot_address_are_refused() {
        assert!("my-workflow_2".parse::<WorkflowId>().is_ok());
        for text in ["a.b", "a b", "it's", ""] {
            assert!(text.parse::<WorkflowId>().is_err(), "{text:?}");
            assert!(text.parse::<JobId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_version_becomes_a_tag_and_a_part_of_a_dag_id() {
        let version: Version = "0.1.0.dev0+gabc-1".parse().unwrap();
        assert_eq!(version.image_tag(), "0.1.0.dev0-gabc-1");
        assert_eq!(version.in_dag_id(), "0_1_0_dev0_gabc_1");
    }

    #[test]
    fn a_project_name_has_no_underscore() {
        assert_eq!(
            ProjectName::normalised("my_project").unwrap().as_str(),
            "my-project"
        );
    }
}
