//! What every build does, however little has changed: evaluating the configuration and writing
//! the DAG files. The target for 200 workflows is 10 ms.
#![allow(clippy::unwrap_used, missing_docs)]

use divan::{Bencher, black_box};
use forebay::dags::{
    DagIds, Job, PythonLiteral, RenderContext, Schedule, ScheduleKind, SecretReference, StartDate,
    StartTime, Workflow, check, render_with_ids,
};
use forebay::project::{DagFormat, DeploymentConfig};

fn main() {
    divan::main();
}

const WORKFLOWS: usize = 200;
const JOBS: usize = 5;

/// Five jobs, one after the other, each with a secret.
fn workflow(number: usize) -> Workflow {
    let literal = |text: &str| PythonLiteral::new(text.to_owned());
    let id = |job: usize| format!("job_{job}").parse().unwrap();
    let job = |job: usize| Job {
        id: id(job),
        retries: literal("3"),
        retry_delay: literal("datetime.timedelta(seconds=60)"),
        execution_timeout: Some(literal("datetime.timedelta(seconds=10800)")),
        secrets: Some(vec![SecretReference {
            target: literal("'database_password'"),
            secret: literal("'database-password'"),
        }]),
        dependencies: job.checked_sub(1).map(id).into_iter().collect(),
    };
    Workflow {
        id: format!("workflow_{number}").parse().unwrap(),
        package: "flow".to_owned(),
        file: format!("flow/workflow_{number}.py"),
        line: Some(10),
        depends_on_past: literal("True"),
        schedule: Schedule {
            kind: ScheduleKind::Text,
            literal: literal("'0 6 * * mon-fri'"),
        },
        start_date: StartDate::Daily,
        environment_variable: "env".to_owned(),
        jobs: (0..JOBS).map(job).collect(),
    }
}

#[divan::bench(args = [DagFormat::Default, DagFormat::Bigflow1_11])]
fn render_200_workflows(bencher: Bencher<'_, '_>, format: DagFormat) {
    let workflows: Vec<_> = (0..WORKFLOWS).map(workflow).collect();
    let version = "0.1.0.dev3+gb930751c".parse().unwrap();
    let now = "2026-01-31T15:42:07[UTC]".parse().unwrap();
    let context = RenderContext {
        format,
        image: "registry.test/team/flow@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        image_tag: None,
        version: &version,
        start_time: StartTime::from_argument(None, &now).unwrap(),
    };
    bencher.bench_local(|| {
        check(&workflows).unwrap();
        for workflow in &workflows {
            black_box(render_with_ids(workflow, &context, DagIds::Versioned).unwrap());
        }
    });
}

#[divan::bench]
fn evaluate_a_configuration(bencher: Bencher<'_, '_>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deployment_config.py");
    let mut text = "import os\nfrom bigflow import Config\n\nPROJECT = 'my-project'\ncommon = dict(region='europe', team='data')\n\ndeployment_config = Config('dev', {**common, 'docker_repository': f'registry.test/{PROJECT}/{{env}}', 'dags_bucket': os.environ.get('BUCKET', 'bucket')})".to_owned();
    for number in 0..20 {
        text.push_str(&format!(
            ".add_configuration('environment{number}', {{**common, 'dags_bucket': 'bucket-{number}'}})"
        ));
    }
    std::fs::write(&path, text).unwrap();
    let no_python = || Err(forebay::python::PythonError::NotFound);
    bencher.bench_local(|| {
        let loaded = DeploymentConfig::load(&path, &no_python).unwrap();
        black_box(loaded.config.resolve(Some("environment7"), &[]).unwrap());
    });
}
