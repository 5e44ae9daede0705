//! Which job of a DAG file waits for which: read out of the file, so that files of every age
//! and of both formats can be drawn.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

/// The jobs of a DAG file and their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct JobGraph {
    /// The jobs, in the file's order, by the ids that `bigflow run` knows.
    pub jobs: Vec<String>,
    /// Pairs of indices into `jobs`: the first runs before the second. Sorted, each once.
    pub edges: Vec<(usize, usize)>,
}

impl JobGraph {
    /// Reads a DAG file. What is not laid out as BigFlow and Forebay lay DAG files out has no jobs.
    pub fn read(file: &str) -> Self {
        let mut jobs = Vec::new();
        let mut variables: HashMap<&str, usize> = HashMap::new();
        let mut pending = Vec::new();
        let mut variable = None;
        for line in file.lines() {
            if let Some(name) = assigned(line) {
                variable = Some(name);
            } else if let Some(job) = named_job(line) {
                if let Some(variable) = variable.take() {
                    variables.insert(variable, jobs.len());
                    jobs.push(job.to_owned());
                }
            } else if let Some((after, before)) = upstream(line) {
                pending.push((before, after));
            }
        }
        let edges: BTreeSet<_> = pending
            .into_iter()
            .filter_map(|(before, after)| Some((*variables.get(before)?, *variables.get(after)?)))
            .collect();
        Self {
            jobs,
            edges: edges.into_iter().collect(),
        }
    }

    /// The jobs that `job` waits for.
    pub fn before(&self, job: usize) -> impl Iterator<Item = usize> {
        let edges = self.edges.iter().filter(move |(_, after)| *after == job);
        edges.map(|(before, _)| *before)
    }
}

/// `task_a = KubernetesPodOperator(` of the default format, `ta_pod_operator_params = {` of BigFlow's.
fn assigned(line: &str) -> Option<&str> {
    let (variable, value) = line.split_once(" = ")?;
    match value {
        "KubernetesPodOperator(" => Some(variable),
        "{" => variable.strip_suffix("_pod_operator_params"),
        _ => None,
    }
}

/// `'--job', 'workflow.job',`, without the workflow.
fn named_job(line: &str) -> Option<&str> {
    let literal = line.trim_start().strip_prefix("'--job', ")?;
    let full = literal.strip_suffix(',')?;
    let full = full.strip_prefix('\'')?.strip_suffix('\'')?;
    full.split_once('.').map(|(_, job)| job)
}

/// `a.set_upstream(b)`: `a` after `b`.
fn upstream(line: &str) -> Option<(&str, &str)> {
    let (after, rest) = line.split_once(".set_upstream(")?;
    Some((after, rest.strip_suffix(')')?))
}

#[cfg(test)]
mod tests {
    use jiff::civil::datetime;
    use proptest::prelude::*;

    use super::super::render::{RenderContext, render};
    use super::super::start_time::StartTime;
    use super::super::workflow::{Job, PythonLiteral, Schedule, ScheduleKind, StartDate, Workflow};
    use super::*;
    use crate::project::DagFormat;

    /// Jobs `j_0`, `j_1`, … and what each waits for.
    fn file(dependencies: &[Vec<usize>], format: DagFormat) -> String {
        let literal = |text: &str| PythonLiteral::new(text.to_owned());
        let id = |job: usize| format!("j_{job}").parse().unwrap();
        let jobs = dependencies.iter().enumerate().map(|(index, before)| Job {
            id: id(index),
            retries: literal("3"),
            retry_delay: literal("datetime.timedelta(seconds=60)"),
            execution_timeout: None,
            secrets: None,
            dependencies: before.iter().map(|job| id(*job)).collect(),
        });
        let workflow = Workflow {
            id: "daily".parse().unwrap(),
            package: "flow".to_owned(),
            file: "flow/a.py".to_owned(),
            line: None,
            depends_on_past: literal("True"),
            schedule: Schedule {
                kind: ScheduleKind::Text,
                literal: literal("'@daily'"),
            },
            start_date: StartDate::Daily,
            environment_variable: "env".to_owned(),
            jobs: jobs.collect(),
        };
        let context = RenderContext {
            format,
            image: "r/i@sha256:0",
            image_tag: None,
            version: &"1.0".parse().unwrap(),
            start_time: StartTime {
                time: datetime(2026, 1, 31, 1, 0, 0, 0),
                explicit: false,
                utc_offset_seconds: 0,
            },
        };
        String::from_utf8(render(&workflow, &context).unwrap().bytes).unwrap()
    }

    proptest! {
        #[test]
        fn what_a_file_was_written_from_is_read_out_of_it(
            bits in prop::collection::vec(prop::collection::vec(any::<bool>(), 9), 0..9)
        ) {
            let dependencies: Vec<Vec<usize>> = bits
                .iter()
                .enumerate()
                .map(|(job, bits)| (0..job).filter(|before| bits[*before]).collect())
                .collect();
            let mut edges: Vec<_> = dependencies
                .iter()
                .enumerate()
                .flat_map(|(job, before)| before.iter().map(move |before| (*before, job)))
                .collect();
            edges.sort();
            for format in [DagFormat::Default, DagFormat::Bigflow1_11] {
                let graph = JobGraph::read(&file(&dependencies, format));
                let names: Vec<_> = (0..bits.len()).map(|job| format!("j_{job}")).collect();
                prop_assert_eq!(&graph.jobs, &names);
                prop_assert_eq!(&graph.edges, &edges);
            }
        }

        #[test]
        fn any_text_can_be_read(text in "(?s).*") {
            JobGraph::read(&text);
        }
    }
}
