//! The folder of a bucket that an environment's DAG files lie in.

use std::fmt;
use std::str::FromStr;

use super::key::DAGS_PREFIX;
use super::record::GenerationRecord;
use super::{Environment, EnvironmentError};
use crate::bucket::{InvalidKey, Listing, ObjectKey};
use crate::dags::DagFileName;

/// `dags/`, which Composer reads, or a folder below it, which it reads as well.
///
/// Several projects in one Composer keep apart with a folder each; and what is
/// listed, cleared and called foreign is only what is in the environment's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DagsPrefix(String);

/// Why a text is no folder for DAG files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be a folder of DAG files: {reason}")]
pub struct InvalidDagsPrefix {
    text: String,
    reason: &'static str,
}

impl DagsPrefix {
    /// The prefix with the slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a key is in this folder, or in one below it.
    pub(super) fn holds(&self, key: &ObjectKey) -> bool {
        key.as_str().starts_with(&self.0)
    }

    /// Whether a key is what [`DagsPrefix::key`] gives: in this folder, and in none below it.
    pub(super) fn is_place_of(&self, key: &ObjectKey) -> bool {
        let name = key.as_str().strip_prefix(&self.0);
        name.is_some_and(|name| !name.contains('/'))
    }

    /// The key of a file in this folder.
    pub(super) fn key(&self, file: &DagFileName) -> Result<ObjectKey, InvalidKey> {
        format!("{self}{file}").parse()
    }
}

impl Default for DagsPrefix {
    fn default() -> Self {
        Self(DAGS_PREFIX.to_owned())
    }
}

impl FromStr for DagsPrefix {
    type Err = InvalidDagsPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| InvalidDagsPrefix {
            text: text.to_owned(),
            reason,
        };
        let folder = text.strip_suffix('/').unwrap_or(text);
        let prefix = format!("{folder}/");
        if !prefix.starts_with(DAGS_PREFIX) {
            return Err(invalid(
                "Composer reads `dags/` and folders below it, as in `dags/team/`",
            ));
        }
        if folder.len() > 512 || folder.parse::<ObjectKey>().is_err() {
            return Err(invalid("a part of it is empty, . or .., or it is too long"));
        }
        if folder.split('/').any(|part| part.ends_with(".py")) {
            return Err(invalid(
                "a folder that ends in .py breaks Composer's synchronisation",
            ));
        }
        Ok(Self(prefix))
    }
}

impl fmt::Display for DagsPrefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Environment {
    /// Lists the folder; all of `dags/` if one of the records has keys elsewhere,
    /// as it has after the folder was changed.
    pub(super) async fn list_dags(
        &self,
        records: &[Option<&GenerationRecord>],
    ) -> Result<Listing, EnvironmentError> {
        let prefix = match self.is_within(records) {
            true => self.options.dags_prefix.as_str(),
            false => DAGS_PREFIX,
        };
        Ok(self.bucket.list(prefix).await?)
    }

    /// A listing in which every key of the records can be seen.
    pub(super) async fn widen(
        &self,
        listing: &mut Listing,
        records: &[Option<&GenerationRecord>],
    ) -> Result<(), EnvironmentError> {
        if !self.is_within(records) {
            *listing = self.bucket.list(DAGS_PREFIX).await?;
        }
        Ok(())
    }

    /// The part of a listing that the next look will see, if it shows all of `target`.
    pub(super) fn seen_next(&self, target: &GenerationRecord, mut listing: Listing) -> Listing {
        if self.is_within(&[Some(target)]) {
            let prefix = self.options.dags_prefix.as_str();
            listing
                .objects
                .retain(|object| object.key.starts_with(prefix));
        }
        listing
    }

    fn is_within(&self, records: &[Option<&GenerationRecord>]) -> bool {
        let mut keys = records
            .iter()
            .flatten()
            .flat_map(|record| record.dags.keys());
        keys.all(|key| self.options.dags_prefix.holds(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dags_and_what_is_below_it_holds_dags() {
        for (text, prefix) in [
            ("dags", "dags/"),
            ("dags/", "dags/"),
            ("dags/team", "dags/team/"),
            ("dags/team/flow/", "dags/team/flow/"),
        ] {
            assert_eq!(text.parse::<DagsPrefix>().unwrap().as_str(), prefix);
        }
        for text in [
            "",
            "/",
            "data/",
            "dags_backup/",
            "/dags/",
            "dags//a",
            "dags/../data",
            "dags/a.py/",
        ] {
            assert!(text.parse::<DagsPrefix>().is_err(), "{text:?}");
        }
        assert_eq!(DagsPrefix::default(), "dags".parse().unwrap());
    }
}
