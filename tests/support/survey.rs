//! Environments with a history, made up: as many generations, workflows and jobs as a test wants.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay::bucket::Checksums;
use forebay::dags::{
    DagFormat, Job, PythonLiteral, RenderContext, Schedule, ScheduleKind, StartDate, StartTime,
    Workflow, render,
};
use forebay::environment::{
    Action, EnvironmentKey, GenerationRecord, RecordReference, RecordedCommit, RecordedDag,
    RecordedImage, Survey, SurveyedImage,
};
use forebay::image::{ContentsBase, ImageContents, LayerOfImage};
use forebay::oci::Sha256Digest;
use forebay_store::ObjectDigest;
use jiff::{Timestamp, ToSpan as _};

pub(crate) struct Story {
    pub(crate) generations: u64,
    pub(crate) workflows: usize,
    /// How many jobs workflow `index` has.
    pub(crate) jobs: fn(usize) -> usize,
    pub(crate) workflow_name: fn(usize) -> String,
    /// Stands wherever a text may be anything.
    pub(crate) words: &'static str,
}

impl Story {
    pub(crate) fn new(generations: u64, workflows: usize) -> Self {
        Self {
            generations,
            workflows,
            jobs: |index| 1 + index * 3 % 8,
            workflow_name: |index| {
                let names = ["tides", "harbour_report", "freight", "weather_import"];
                match names.get(index) {
                    Some(name) => (*name).to_owned(),
                    None => format!("workflow_{index}"),
                }
            },
            words: "anna@ci-7",
        }
    }

    pub(crate) fn survey(&self) -> (EnvironmentKey, Survey) {
        let key = EnvironmentKey {
            project: "harbour".parse().unwrap(),
            environment: "prod".parse().unwrap(),
        };
        let mut survey = Survey {
            generations: Vec::new(),
            has_older: false,
            applying: None,
            images: BTreeMap::new(),
            contents: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        for number in 1..=self.generations {
            let record = self.generation(number, &key, &mut survey);
            survey.generations.insert(0, Arc::new(record));
        }
        (key, survey)
    }

    fn generation(
        &self,
        number: u64,
        key: &EnvironmentKey,
        survey: &mut Survey,
    ) -> GenerationRecord {
        // Every seventh goes back by two.
        let is_rollback = number.is_multiple_of(7);
        let code = if is_rollback { number - 2 } else { number };
        let image = Sha256Digest::of(format!("image {code}").as_bytes());
        let contents = self.contents(code);
        let contents_bytes = serde_json::to_vec(&contents).unwrap();
        let contents_digest = ObjectDigest::of(&contents_bytes);
        survey.contents.insert(contents_digest, contents);
        survey
            .images
            .insert(image, SurveyedImage::Present(self.layers(code)));
        let dags = (0..self.workflows).map(|index| {
            // A few workflows change with a generation, all name its image.
            let workflow = self.workflow(index, code);
            let file = render(
                &workflow,
                &RenderContext {
                    format: DagFormat::Default,
                    image: &format!("europe-docker.pkg.dev/harbour/workflows/harbour@{image}"),
                    image_tag: None,
                    version: &format!("1.{code}.0").parse().unwrap(),
                    start_time: StartTime {
                        time: jiff::civil::datetime(2026, 1, 31, 1, 0, 0, 0),
                        explicit: false,
                        utc_offset_seconds: 0,
                    },
                },
            )
            .unwrap();
            let object = ObjectDigest::of(&file.bytes);
            let dag = RecordedDag {
                workflow: file.workflow.clone(),
                identity: file.identity,
                image,
                image_tag: None,
                object,
                start: file.start,
                ends: None,
                checksums: Checksums::of(&file.bytes),
            };
            survey.files.insert(object, file.bytes.into());
            (format!("dags/{}", file.file_name).parse().unwrap(), dag)
        });
        let dags = dags.collect();
        let created: Timestamp = "2026-01-02T08:15:00Z".parse().unwrap();
        let hours = i64::try_from(number * 9 + number / 4 * 30).unwrap();
        GenerationRecord {
            schema: 1,
            project: key.project.clone(),
            environment: key.environment.clone(),
            generation: number,
            parent: (number > 1).then(|| RecordReference {
                generation: number - 1,
                record: ObjectDigest::of(b""),
            }),
            action: if is_rollback {
                Action::Rollback
            } else {
                Action::Deploy
            },
            rollback_of: is_rollback.then_some(code),
            version: format!("1.{code}.0").parse().unwrap(),
            git: Some(RecordedCommit {
                commit: ObjectDigest::of(&code.to_le_bytes()).to_string()[..40].to_owned(),
                dirty: number % 5 == 4,
            }),
            ancestors: Vec::new(),
            rolled_away: Vec::new(),
            created_at: created.checked_add(hours.hours()).unwrap(),
            created_by: self.words.to_owned(),
            program: "forebay 0.1.0".to_owned(),
            image,
            images: vec![RecordedImage {
                digest: image,
                repository: "europe-docker.pkg.dev/harbour/workflows/harbour".to_owned(),
                retention_tag: format!("forebay-harbour_prod-{code}"),
                contents: Some(contents_digest),
            }],
            dags,
        }
    }

    fn contents(&self, code: u64) -> ImageContents {
        let packages = (0..90).map(|index| {
            let minor = if index == code % 90 { code } else { 4 };
            (format!("package-{index}"), format!("{index}.{minor}"))
        });
        let files = (0..120_u64).map(|index| {
            let content = format!("{index} {}", if index % 9 == code % 9 { code } else { 0 });
            (
                format!("harbour/part_{index}.py"),
                ObjectDigest::of(content.as_bytes()),
            )
        });
        let hostile = (self.words.to_owned(), ObjectDigest::of(&code.to_le_bytes()));
        ImageContents {
            schema: 1,
            base: Some(ContentsBase {
                name: Some("docker.io/library/python:3.11-slim".to_owned()),
                digest: Sha256Digest::of(b"base"),
            }),
            packages: packages.collect(),
            files: files.chain([hostile]).collect(),
        }
    }

    fn layers(&self, code: u64) -> Vec<LayerOfImage> {
        let layer = |name: String, size: u64, created_by: String, own: bool| LayerOfImage {
            digest: Sha256Digest::of(name.as_bytes()),
            size,
            created_by,
            has_date_of_image: own,
        };
        let base = [29_100_000, 3_500_000, 12_300_000, 249];
        let base = base.iter().enumerate().map(|(index, size)| {
            layer(
                format!("base {index}"),
                *size,
                "RUN apt-get update".to_owned(),
                false,
            )
        });
        let buckets = (0..5_u64).map(|bucket| {
            let of = (0..90_u64).filter(move |index| index % 5 == bucket);
            let wheels: Vec<_> = of
                .map(|index| {
                    let minor = if index == code % 90 { code } else { 4 };
                    format!("package_{index}-{index}.{minor}-py3-none-any.whl")
                })
                .collect();
            let line = format!("pip install {}", wheels.join(" "));
            layer(
                line.clone(),
                4_000_000 * (bucket + 1) * (bucket + 1),
                line,
                true,
            )
        });
        let project = layer(
            format!("project {code}"),
            84_000,
            "pip install harbour".to_owned(),
            true,
        );
        let copy = layer(
            "copy".to_owned(),
            1_200,
            format!("COPY {} /app/", self.words),
            true,
        );
        base.chain(buckets).chain([copy, project]).collect()
    }

    fn workflow(&self, index: usize, code: u64) -> Workflow {
        let literal = |text: &str| PythonLiteral::new(text.to_owned());
        let count = (self.jobs)(index);
        let names = [
            "load",
            "clean",
            "join_the_tables_of_all_harbours_and_ships",
            "train",
            "score",
            "publish",
        ];
        let id = |job: usize| match names.get(job) {
            Some(name) if count <= names.len() => (*name).to_owned(),
            _ => format!("job_{job}"),
        };
        let jobs = (0..count).map(|job| Job {
            id: id(job).parse().unwrap(),
            retries: literal(if code % 3 == index as u64 % 3 {
                "3"
            } else {
                "5"
            }),
            retry_delay: literal("datetime.timedelta(seconds=60)"),
            execution_timeout: None,
            secrets: None,
            dependencies: match job {
                0 => Vec::new(),
                job => {
                    let mut before = vec![(job - 1) / 2, (job * 7) % job.max(1), job / 3];
                    before.sort_unstable();
                    before.dedup();
                    before
                        .iter()
                        .map(|before| id(*before).parse().unwrap())
                        .collect()
                }
            },
        });
        Workflow {
            id: (self.workflow_name)(index).parse().unwrap(),
            package: "harbour".to_owned(),
            file: "harbour/a.py".to_owned(),
            line: None,
            depends_on_past: literal("True"),
            schedule: Schedule {
                kind: ScheduleKind::Other,
                literal: PythonLiteral::new(match self.words {
                    "anna@ci-7" => "'@daily'".to_owned(),
                    words => format!("'{words}'"),
                }),
            },
            start_date: StartDate::Daily,
            environment_variable: "env".to_owned(),
            jobs: jobs.collect(),
        }
    }
}
