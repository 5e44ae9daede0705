//! What the last builds were made of, so that `why-rebuilt` can name what is different.

use std::collections::BTreeMap;

use forebay_store::{ObjectDigest, Recipe};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Build, BuildError, DagOptions, ImageNaming};
use crate::dags::{DagFile, probe_inputs};
use crate::image::image_inputs;
use crate::oci::Sha256Digest;
use crate::project::{DagFormat, DagIds};
use crate::python::{recall, remember};

/// The kind of the recipe under which they are kept.
const INPUTS: &str = "build-inputs";

/// Everything that decides what a build gives, by names that people understand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildInputs {
    /// What decides the image.
    pub image: BTreeMap<String, String>,
    /// What decides the DAG files, besides the image.
    pub dags: BTreeMap<String, String>,
}

/// A build that gave something else than the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedBuild {
    /// The version that it had.
    pub version: String,
    /// When it was made.
    pub built_at: Timestamp,
    /// What went in.
    pub inputs: BuildInputs,
}

/// The last two of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedBuilds {
    /// The last one.
    pub last: RecordedBuild,
    /// The one before it.
    pub before: Option<RecordedBuild>,
}

impl BuildInputs {
    /// The names whose values are different: first of the image, then of the DAG files.
    pub fn differences(&self, other: &Self) -> [Vec<Difference>; 2] {
        [
            differences(&self.image, &other.image),
            differences(&self.dags, &other.dags),
        ]
    }
}

/// One input that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name.
    pub input: String,
    /// What it was; null if it was not there.
    pub from: Option<String>,
    /// What it is; null if it is no longer there.
    pub to: Option<String>,
}

fn differences(from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) -> Vec<Difference> {
    let mut names: Vec<&String> = from.keys().chain(to.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| from.get(*name) != to.get(*name))
        .map(|name| Difference {
            input: name.clone(),
            from: from.get(name).cloned(),
            to: to.get(name).cloned(),
        })
        .collect()
}

impl Build<'_> {
    /// What a build would be made of now. Builds nothing, and starts no Python.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn build_inputs(&self, options: &DagOptions) -> Result<BuildInputs, BuildError> {
        let planned = self.image_inputs().await?;
        let mut image = self
            .with_request(&planned.first, async |request| Ok(image_inputs(request)?))
            .await?;
        for other in &planned.others {
            let inputs = self
                .with_request(other, async |request| Ok(image_inputs(request)?))
                .await?;
            let platform = other.base.platform;
            let named = inputs.into_iter();
            image.extend(named.map(|(name, value)| (format!("{platform}: {name}"), value)));
        }
        let start_time = options.default_start_time()?;
        let store = self.workspace.store();
        let mut dags = self
            .with_probe_request(start_time, |request| Ok(probe_inputs(request, store)?))
            .await?;
        let format = match options.format(self.workspace) {
            DagFormat::Default => "default",
            DagFormat::Bigflow1_11 => "bigflow-1.11",
        };
        let naming = match options.image_naming(self.workspace) {
            ImageNaming::Digest => "by digest",
            ImageNaming::Tag => "by tag",
        };
        let ids = match self.workspace.project().settings.dags.ids {
            DagIds::Versioned => "versioned",
            DagIds::Stable => "stable",
        };
        for (name, value) in [
            ("the format", format),
            ("how the image is named", naming),
            ("the kind of ids", ids),
            ("the image's repository", self.target.repository_text()?),
        ] {
            dags.insert(name.to_owned(), value.to_owned());
        }
        Ok(BuildInputs { image, dags })
    }

    fn recipe(&self, kind: &str) -> Result<Recipe, BuildError> {
        let project = self.workspace.project();
        let inputs = (
            &project.directory,
            project.spec.name.as_str(),
            self.target.environment.as_str(),
        );
        Ok(Recipe::new(kind, 1, &inputs)?)
    }

    /// What the last builds here were made of.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn recorded_builds(&self) -> Result<Option<RecordedBuilds>, BuildError> {
        Ok(recall(self.workspace.store(), &self.recipe(INPUTS)?)?)
    }

    /// Records what this build was made of, if it gave something else than the last one:
    /// this image, and these DAG files.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn record_inputs(
        &self,
        options: &DagOptions,
        image: &Sha256Digest,
        files: &[DagFile],
    ) -> Result<(), BuildError> {
        let mut made = image.to_string();
        for file in files {
            made.push_str(&file.identity.to_string());
        }
        let fingerprint = ObjectDigest::of(made.as_bytes());
        let store = self.workspace.store();
        let fingerprint_recipe = self.recipe("build-fingerprint")?;
        if recall(store, &fingerprint_recipe)? == Some(fingerprint) {
            return Ok(());
        }
        let known = self.recorded_builds()?;
        let last = RecordedBuild {
            version: self.version.to_string(),
            built_at: Timestamp::now(),
            inputs: self.build_inputs(options).await?,
        };
        let before = match known {
            // Another flag, or only another hour.
            Some(known) if known.last.inputs == last.inputs => known.before,
            Some(known) => Some(known.last),
            None => None,
        };
        let mut batch = store.begin()?;
        remember(
            &mut batch,
            &self.recipe(INPUTS)?,
            &RecordedBuilds { last, before },
        )?;
        remember(&mut batch, &fingerprint_recipe, &fingerprint)?;
        batch.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_went_and_changed_is_named() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let from = of(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let to = of(&[("a", "1"), ("b", "2"), ("d", "1")]);
        let found = differences(&from, &to);
        let found: Vec<_> = found
            .iter()
            .map(|found| {
                (
                    found.input.as_str(),
                    found.from.as_deref(),
                    found.to.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("b", Some("1"), Some("2")),
                ("c", Some("1"), None),
                ("d", None, Some("1"))
            ]
        );
    }
}
