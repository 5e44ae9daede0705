//! What a report says, in data: the page is written from it, and `--json` prints it
//! (`schema/report.schema.json`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::Serialize;

use crate::dags::{JobGraph, WrittenDag};
use crate::environment::{
    Action, Changed, Direction, EnvironmentKey, GenerationRecord, ImageDifference, RecordedImage,
    Survey, SurveyedImage,
};
use crate::image::{ContentsBase, ImageContents, LayerOfImage};
use crate::oci::Sha256Digest;
use crate::wheels::WheelFileName;
use forebay_store::ObjectDigest;

/// An environment with its generations.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whose it is.
    pub project: String,
    /// Which environment.
    pub environment: String,
    /// The live generation; nothing if nothing was deployed yet.
    pub live: Option<u64>,
    /// The change that is being applied, or was left unfinished.
    pub applying: Option<Applying>,
    /// Whether there are older generations than those that are shown.
    pub has_older: bool,
    /// The newest first.
    pub generations: Vec<Generation>,
    /// The images that the generations name.
    pub images: BTreeMap<Sha256Digest, Image>,
    /// What is in those images that were built by Forebay.
    pub contents: BTreeMap<ObjectDigest, ImageContents>,
    /// The graphs of the DAG files, each once.
    pub graphs: Vec<JobGraph>,
    /// The text of each DAG file.
    #[serde(skip)]
    pub files: BTreeMap<ObjectDigest, String>,
}

/// A change that has begun.
#[derive(Debug, Clone, Serialize)]
pub struct Applying {
    /// The generation being applied, or given up.
    pub generation: u64,
    /// Which of both.
    pub direction: Direction,
    /// Who does it.
    pub holder: String,
}

/// A generation.
#[derive(Debug, Clone, Serialize)]
pub struct Generation {
    /// Its number.
    pub generation: u64,
    /// What brought it about.
    pub action: Action,
    /// The generation whose set it restores.
    pub rollback_of: Option<u64>,
    /// The project's version.
    pub version: String,
    /// The git commit.
    pub commit: Option<String>,
    /// Whether tracked files differed from the commit.
    pub dirty: bool,
    /// When it was made, by its maker's clock.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// The program that recorded it.
    pub program: String,
    /// The environment's image.
    pub image: Sha256Digest,
    /// That image and those of workflows that were left as they were.
    pub images: Vec<Sha256Digest>,
    /// Its workflows, sorted.
    pub workflows: Vec<Workflow>,
    /// What is different from the generation before; nothing if that is not shown.
    pub since: Option<Since>,
}

/// A workflow in a generation.
#[derive(Debug, Clone, Serialize)]
pub struct Workflow {
    /// Its id.
    pub workflow: String,
    /// The DAG file's key in the bucket.
    pub key: String,
    /// The BLAKE3 of the file.
    pub file: ObjectDigest,
    /// Its size in bytes.
    pub size: u64,
    /// The image that it runs.
    pub image: Sha256Digest,
    /// Its id in Airflow, if the file can be read.
    pub dag_id: Option<String>,
    /// Its schedule, in Python.
    pub schedule: Option<String>,
    /// The start time that it was built with.
    pub start: Option<DateTime>,
    /// The end that it was given when it was no longer wanted.
    pub ends: Option<Timestamp>,
    /// Which of the report's graphs is its.
    pub graph: Option<usize>,
    /// What became of it since the generation before; nothing if that is not shown.
    pub change: Option<Change>,
}

/// What became of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It was not there.
    Added,
    /// Its file was another.
    Changed,
    /// Its file was the same.
    Unchanged,
}

/// What is different from the generation before.
#[derive(Debug, Clone, Serialize)]
pub struct Since {
    /// That generation.
    pub generation: u64,
    /// Workflows that it had and this one has not.
    pub removed: Vec<String>,
    /// The layers that its image had already; nothing if one of the images cannot be read.
    pub layers: Option<SharedLayers>,
    /// The bases, if they are different.
    pub base: Option<[Option<ContentsBase>; 2]>,
    /// Distributions with their versions; nothing if what is in one of the images is not recorded.
    pub packages: Option<Vec<Changed<String>>>,
    /// The project's files.
    pub files: Option<Vec<Changed<ObjectDigest>>>,
}

/// What two images have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SharedLayers {
    /// How many layers.
    pub layers: usize,
    /// Their bytes, as they are sent.
    pub bytes: u64,
}

/// An image.
#[derive(Debug, Clone, Serialize)]
pub struct Image {
    /// The repository that it was recorded in.
    pub repository: String,
    /// The tag that retains it.
    pub retention_tag: String,
    /// Which of the report's contents are its.
    pub contents: Option<ObjectDigest>,
    /// Whether the registry has it.
    pub state: ImageState,
    /// Its layers, the lowest first; none if they are not known.
    pub layers: Vec<Layer>,
}

/// Whether the registry has an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageState {
    /// It has.
    Present,
    /// It no longer has it.
    Gone,
    /// It was not asked, could not be, or has something else under that digest.
    Unknown,
}

/// A layer.
#[derive(Debug, Clone, Serialize)]
pub struct Layer {
    /// The digest of its bytes as they are sent.
    pub digest: Sha256Digest,
    /// How many those are.
    pub size: u64,
    /// What it is.
    pub kind: KindOfLayer,
    /// What made it, in the image's own words.
    pub created_by: String,
    /// The distributions that it holds, as far as those words tell.
    pub packages: Vec<Package>,
}

/// What a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KindOfLayer {
    /// One of the base's.
    Base,
    /// Wheels, as they are installed.
    Packages,
    /// The project.
    Project,
    /// What a line of a Dockerfile gave.
    Line,
}

/// A distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Its normal name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Report {
    /// Says what a survey has found.
    pub fn of(environment: &EnvironmentKey, survey: Survey) -> Self {
        let images = images(&survey);
        let files: BTreeMap<_, _> = (survey.files.iter())
            .map(|(digest, bytes)| (*digest, String::from_utf8_lossy(bytes).into_owned()))
            .collect();
        let mut graphs = Graphs::default();
        let records = survey.generations.iter();
        let before = survey.generations.iter().skip(1).map(Some).chain([None]);
        let generations = records.zip(before).map(|(record, before)| {
            let before = before.map(AsRef::as_ref);
            generation(
                record,
                before,
                &files,
                &images,
                &survey.contents,
                &mut graphs,
            )
        });
        Self {
            project: environment.project.to_string(),
            environment: environment.environment.to_string(),
            live: survey.generations.first().map(|record| record.generation),
            applying: survey.applying.map(|intent| Applying {
                generation: intent.reference.generation,
                direction: intent.direction,
                holder: intent.holder,
            }),
            has_older: survey.has_older,
            generations: generations.collect(),
            images,
            contents: survey.contents,
            graphs: graphs.all,
            files,
        }
    }
}

impl Image {
    /// The bytes of its layers, as they are sent.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

/// Each graph once, in the order of their first use.
#[derive(Default)]
struct Graphs {
    all: Vec<JobGraph>,
    known: HashMap<JobGraph, usize>,
}

impl Graphs {
    fn index(&mut self, graph: JobGraph) -> Option<usize> {
        if graph.jobs.is_empty() {
            return None;
        }
        let next = self.all.len();
        let index = *self.known.entry(graph).or_insert_with_key(|graph| {
            self.all.push(graph.clone());
            next
        });
        Some(index)
    }
}

fn generation(
    record: &GenerationRecord,
    before: Option<&GenerationRecord>,
    files: &BTreeMap<ObjectDigest, String>,
    images: &BTreeMap<Sha256Digest, Image>,
    contents: &BTreeMap<ObjectDigest, ImageContents>,
    graphs: &mut Graphs,
) -> Generation {
    let of = |record: &GenerationRecord| -> BTreeMap<String, ObjectDigest> {
        let dags = record.dags.values();
        dags.map(|dag| (dag.workflow.to_string(), dag.object))
            .collect()
    };
    let before_workflows = before.map(of);
    let mut workflows: Vec<Workflow> = (record.dags.iter())
        .map(|(key, dag)| {
            let text = files.get(&dag.object).map(String::as_str);
            let written = text.and_then(|text| WrittenDag::read(text.as_bytes()).ok());
            let name = dag.workflow.to_string();
            Workflow {
                key: key.to_string(),
                file: dag.object,
                size: dag.checksums.size,
                image: dag.image,
                dag_id: written.as_ref().map(|written| written.dag_id.to_owned()),
                schedule: written.as_ref().map(|written| written.schedule.to_owned()),
                start: written.as_ref().map(|written| written.start),
                ends: dag.ends,
                graph: text.and_then(|text| graphs.index(JobGraph::read(text))),
                change: (before_workflows.as_ref()).map(|before| match before.get(&name) {
                    None => Change::Added,
                    Some(file) if *file == dag.object => Change::Unchanged,
                    Some(_) => Change::Changed,
                }),
                workflow: name,
            }
        })
        .collect();
    workflows.sort_by(|one, other| (&one.workflow, &one.key).cmp(&(&other.workflow, &other.key)));
    let since = before.map(|before| {
        let now = of(record);
        let removed = before_workflows.iter().flatten();
        let removed = removed.filter(|(workflow, _)| !now.contains_key(*workflow));
        let image = images.get(&record.image);
        let old_image = images.get(&before.image);
        let contents_of = |image: Option<&Image>| contents.get(&image?.contents?);
        let difference = match (contents_of(old_image), contents_of(image)) {
            _ if record.image == before.image => Some(ImageDifference::default()),
            (Some(from), Some(to)) => Some(ImageDifference::between(from, to)),
            _ => None,
        };
        let (base, packages, files) = match difference {
            Some(difference) => (
                difference.base,
                Some(difference.packages),
                Some(difference.files),
            ),
            None => (None, None, None),
        };
        Since {
            generation: before.generation,
            removed: removed.map(|(workflow, _)| workflow.clone()).collect(),
            layers: shared(old_image, image),
            base,
            packages,
            files,
        }
    });
    Generation {
        generation: record.generation,
        action: record.action,
        rollback_of: record.rollback_of,
        version: record.version.to_string(),
        commit: record.git.as_ref().map(|git| git.commit.clone()),
        dirty: record.is_dirty(),
        created_at: record.created_at,
        created_by: record.created_by.clone(),
        program: record.program.clone(),
        image: record.image,
        images: record.images.iter().map(|image| image.digest).collect(),
        workflows,
        since,
    }
}

fn shared(before: Option<&Image>, image: Option<&Image>) -> Option<SharedLayers> {
    let (before, image) = (before?, image?);
    if before.state != ImageState::Present || image.state != ImageState::Present {
        return None;
    }
    let known: BTreeSet<_> = before.layers.iter().map(|layer| layer.digest).collect();
    let shared = image.layers.iter();
    let shared = shared.filter(|layer| known.contains(&layer.digest));
    let start = SharedLayers {
        layers: 0,
        bytes: 0,
    };
    Some(shared.fold(start, |sum, layer| SharedLayers {
        layers: sum.layers + 1,
        bytes: sum.bytes.saturating_add(layer.size),
    }))
}

fn images(survey: &Survey) -> BTreeMap<Sha256Digest, Image> {
    let recorded = survey.generations.iter().flat_map(|record| &record.images);
    recorded
        .map(|recorded| (recorded.digest, image(recorded, survey)))
        .collect()
}

fn image(recorded: &RecordedImage, survey: &Survey) -> Image {
    let (state, layers) = match survey.images.get(&recorded.digest) {
        Some(SurveyedImage::Present(layers)) => (ImageState::Present, layers.as_slice()),
        Some(SurveyedImage::Gone) => (ImageState::Gone, [].as_slice()),
        Some(SurveyedImage::Unknown) | None => (ImageState::Unknown, [].as_slice()),
    };
    let is_ours = recorded.contents.is_some();
    Image {
        repository: recorded.repository.clone(),
        retention_tag: recorded.retention_tag.clone(),
        contents: recorded.contents,
        state,
        layers: layers.iter().map(|found| layer(is_ours, found)).collect(),
    }
}

/// `is_ours`: whether Forebay made the image, so that its words and dates can be counted on.
fn layer(is_ours: bool, layer: &LayerOfImage) -> Layer {
    let installed = layer.created_by.strip_prefix("pip install ");
    let installed = installed.filter(|_| is_ours && layer.has_date_of_image);
    let wheels: Option<Vec<WheelFileName>> = installed
        .map(|names| names.split(' ').map(|name| name.parse().ok()).collect())
        .unwrap_or_default();
    let kind = match (&wheels, installed) {
        _ if is_ours && !layer.has_date_of_image => KindOfLayer::Base,
        (Some(_), _) => KindOfLayer::Packages,
        (None, Some(_)) => KindOfLayer::Project,
        _ => KindOfLayer::Line,
    };
    let packages = wheels.into_iter().flatten().map(|wheel| Package {
        name: wheel.distribution().to_string(),
        version: wheel.version().to_owned(),
    });
    Layer {
        digest: layer.digest,
        size: layer.size,
        kind,
        created_by: layer.created_by.clone(),
        packages: packages.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_layer_are_believed_only_if_forebay_wrote_them() {
        let kind = |is_ours, has_date_of_image, created_by: &str| {
            let found = LayerOfImage {
                digest: Sha256Digest::of(b""),
                size: 1,
                created_by: created_by.to_owned(),
                has_date_of_image,
            };
            let layer = layer(is_ours, &found);
            (layer.kind, layer.packages.len())
        };
        let wheels =
            "pip install Six-1.17.0-py2.py3-none-any.whl numpy-2.0-cp311-cp311-linux_x86_64.whl";
        for (is_ours, has_date_of_image, created_by, expected) in [
            (true, true, wheels, (KindOfLayer::Packages, 2)),
            (true, true, "pip install harbour", (KindOfLayer::Project, 0)),
            (true, true, "COPY a /b", (KindOfLayer::Line, 0)),
            (true, false, wheels, (KindOfLayer::Base, 0)),
            (false, true, wheels, (KindOfLayer::Line, 0)),
            (false, false, "RUN pip install six", (KindOfLayer::Line, 0)),
        ] {
            assert_eq!(kind(is_ours, has_date_of_image, created_by), expected);
        }
    }

    #[test]
    fn equal_graphs_are_one() {
        let graph = |job: &str| JobGraph {
            jobs: vec![job.to_owned()],
            edges: Vec::new(),
        };
        let mut graphs = Graphs::default();
        let indices = ["a", "b", "a"].map(|job| graphs.index(graph(job)));
        assert_eq!(indices, [Some(0), Some(1), Some(0)]);
        assert_eq!(graphs.index(JobGraph::default()), None);
    }
}
