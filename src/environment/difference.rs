//! What is different between two generations: packages, project files, lines of DAG files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use similar::TextDiff;

use super::record::GenerationRecord;
use super::{Environment, EnvironmentError};
use crate::image::{ContentsBase, ImageContents};
use crate::project::WorkflowId;
use forebay_store::ObjectDigest;

/// Lines around a changed one.
const CONTEXT: usize = 3;

/// What is different between two generations.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The one.
    pub from: Arc<GenerationRecord>,
    /// The other.
    pub to: Arc<GenerationRecord>,
    /// What is different between their images; nothing if the contents of one are not recorded.
    pub image: Option<ImageDifference>,
    /// The DAG files that are different, by workflow.
    pub dags: Vec<DagDifference>,
}

/// What is different between two images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDifference {
    /// The bases, if they are different.
    pub base: Option<[Option<ContentsBase>; 2]>,
    /// Distributions with their versions: absent, another, or no longer there.
    pub packages: Vec<Changed<String>>,
    /// The project's files with their digests.
    pub files: Vec<Changed<ObjectDigest>>,
}

/// Something by its name, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed<T> {
    /// Its name.
    pub name: String,
    /// What it was; nothing if it was not there.
    pub from: Option<T>,
    /// What it is; nothing if it is gone.
    pub to: Option<T>,
}

/// A workflow's DAG file, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DagDifference {
    /// The workflow.
    pub workflow: WorkflowId,
    /// Its key before.
    pub from: Option<String>,
    /// Its key after.
    pub to: Option<String>,
    /// The changed lines, as `diff -u` shows them.
    pub lines: String,
}

impl Difference {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.dags.is_empty() && self.from.image == self.to.image
    }
}

impl Environment {
    /// Compares two generations of the history: `from`, or the one before `to`; `to`, or the
    /// live one.
    ///
    /// # Errors
    /// [`EnvironmentError::NoGeneration`] if one of them is not in the history.
    pub async fn difference(
        &self,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<Difference, EnvironmentError> {
        let live = self.read_head().await?.and_then(|seen| seen.head.live);
        let mut next = live.map(|live| live.reference);
        let to = to.or(next.map(|live| live.generation));
        // Of a long history no more than these two are held.
        let mut numbers = [from, to];
        let mut found = [None, None];
        while let Some(reference) = next
            && found.iter().any(Option::is_none)
        {
            let Some(record) = self.load_unless_pruned(&reference).await? else {
                break;
            };
            next = record.parent;
            let number = Some(record.generation);
            if number == to && from.is_none() {
                numbers[0] = record.parent.map(|parent| parent.generation);
            }
            for (wanted, found) in numbers.iter().zip(&mut found) {
                if *wanted == number {
                    *found = Some(Arc::clone(&record));
                }
            }
        }
        let [from, to] = found;
        let missing = |generation| EnvironmentError::NoGeneration { generation };
        let to = to.ok_or_else(|| missing(numbers[1]))?;
        let from = from.ok_or_else(|| missing(numbers[0]))?;
        let contents = (self.contents(&from).await?, self.contents(&to).await?);
        let image = match contents {
            _ if from.image == to.image => Some(ImageDifference::default()),
            (Some(from), Some(to)) => Some(ImageDifference::between(&from, &to)),
            _ => None,
        };
        let dags = self.compare_dags(&from, &to).await?;
        Ok(Difference {
            from,
            to,
            image,
            dags,
        })
    }

    /// What is in a generation's image, if that was recorded and can be read.
    async fn contents(
        &self,
        record: &GenerationRecord,
    ) -> Result<Option<ImageContents>, EnvironmentError> {
        let mut images = record.images.iter();
        let image = images.find(|image| image.digest == record.image);
        let Some(digest) = image.and_then(|image| image.contents) else {
            return Ok(None);
        };
        match self.object(digest).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(EnvironmentError::LostObject { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn compare_dags(
        &self,
        from: &GenerationRecord,
        to: &GenerationRecord,
    ) -> Result<Vec<DagDifference>, EnvironmentError> {
        let of = |record: &GenerationRecord| -> BTreeMap<WorkflowId, (String, ObjectDigest)> {
            let dags = record.lasting();
            dags.map(|(key, dag)| (dag.workflow.clone(), (key.to_string(), dag.object)))
                .collect()
        };
        let (before, after) = (of(from), of(to));
        let workflows: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let mut differences = Vec::new();
        for workflow in workflows {
            let (was, is) = (before.get(workflow), after.get(workflow));
            if was == is {
                continue;
            }
            let (was_bytes, is_bytes) = (self.file(was).await?, self.file(is).await?);
            let key = |file: Option<&(String, ObjectDigest)>| file.map(|(key, _)| key.clone());
            let (from, to) = (key(was), key(is));
            let name = |key: &Option<String>| key.clone().unwrap_or_else(|| "/dev/null".to_owned());
            let texts = [&was_bytes, &is_bytes].map(|bytes| String::from_utf8_lossy(bytes));
            let lines = TextDiff::from_lines(texts[0].as_ref(), texts[1].as_ref())
                .unified_diff()
                .context_radius(CONTEXT)
                .header(&name(&from), &name(&to))
                .to_string();
            differences.push(DagDifference {
                workflow: workflow.clone(),
                from,
                to,
                lines,
            });
        }
        Ok(differences)
    }

    async fn file(&self, file: Option<&(String, ObjectDigest)>) -> Result<Bytes, EnvironmentError> {
        match file {
            Some((_, object)) => self.object(*object).await,
            None => Ok(Bytes::new()),
        }
    }
}

impl ImageDifference {
    /// Compares what is in two images.
    pub fn between(from: &ImageContents, to: &ImageContents) -> Self {
        Self {
            base: (from.base != to.base).then(|| [from.base.clone(), to.base.clone()]),
            packages: compare_maps(&from.packages, &to.packages),
            files: compare_maps(&from.files, &to.files),
        }
    }
}

fn compare_maps<T: Clone + PartialEq>(
    from: &BTreeMap<String, T>,
    to: &BTreeMap<String, T>,
) -> Vec<Changed<T>> {
    let names: BTreeSet<_> = from.keys().chain(to.keys()).collect();
    let changes = names.into_iter().map(|name| Changed {
        name: name.clone(),
        from: from.get(name).cloned(),
        to: to.get(name).cloned(),
    });
    changes.filter(|change| change.from != change.to).collect()
}
