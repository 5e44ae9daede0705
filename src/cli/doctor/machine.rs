//! What a deploy needs of this machine and of the project.

use super::finding::Finding;
use crate::artifacts::{Build, BuildError, Workspace};
use crate::project::DagFormat;

pub(super) fn python(workspace: &Workspace) -> Finding {
    const ABOUT: &str = "python";
    match workspace.interpreter() {
        Ok(python) => {
            let place = python.executable.display();
            let version = python.version;
            match &python.bigflow {
                Some(bigflow) => Finding::good(
                    ABOUT,
                    format!("Python {version} at {place} has BigFlow {bigflow}"),
                ),
                None => Finding::good(
                    ABOUT,
                    format!(
                        "Python {version} at {place} has no BigFlow: workflows are imported with the image's wheels"
                    ),
                ),
            }
        }
        Err(error) => Finding::bad(ABOUT, &BuildError::from(error).into()),
    }
}

pub(super) fn format(workspace: &Workspace) -> Finding {
    const ABOUT: &str = "airflow";
    match workspace.project().settings.dags.format {
        DagFormat::Default => {
            Finding::good(ABOUT, "the DAG files are written for Airflow from 2.3 to 3")
        }
        DagFormat::Bigflow1_11 => Finding::warning(
            ABOUT,
            "the DAG files are BigFlow's: they need Airflow 2.3 to 2.9, and do not import in Airflow 3",
            "write format = \"default\" into [tool.forebay.dags]",
        ),
    }
}

/// Whether lines of the Dockerfile need a container, and whether something runs them.
pub(super) async fn engine(build: &Build<'_>) -> Finding {
    const ABOUT: &str = "engine";
    let engine = match build.engine() {
        Ok(engine) => engine,
        Err(error) => return Finding::bad(ABOUT, &error.into()),
    };
    let engine = engine.map(|engine| format!("{} {}", engine.program.as_str(), engine.version));
    // Planning looks the base up and writes what it is into forebay.lock, which a doctor does not.
    let lines = match build.base_is_pinned() {
        Ok(false) => None,
        Ok(true) => match build.image_plans().await {
            Ok(plans) => Some(
                plans
                    .iter()
                    .flat_map(|(plan, _)| plan.engine_lines())
                    .map(|line| line.line.to_string())
                    .collect::<Vec<_>>(),
            ),
            Err(error) => return Finding::bad(ABOUT, &error.into()),
        },
        Err(error) => return Finding::bad(ABOUT, &error.into()),
    };
    match (lines.as_deref(), engine) {
        (Some([]), _) => Finding::good(ABOUT, "no line of the Dockerfile needs a container"),
        (Some(lines), Some(engine)) => Finding::good(
            ABOUT,
            format!(
                "{} of the Dockerfile need a container, and {engine} works",
                named(lines)
            ),
        ),
        (None, Some(engine)) => Finding::good(
            ABOUT,
            format!("{engine} works, for lines that need a container"),
        ),
        (Some(lines), None) => Finding::warning(
            ABOUT,
            format!(
                "{} of the Dockerfile need a container, and neither docker nor podman nor buildah works here",
                named(lines)
            ),
            "start or install one of them; or run `forebay image base push` where one is, and commit forebay.lock",
        ),
        (None, None) => Finding::good(
            ABOUT,
            "neither docker nor podman nor buildah works here; `forebay image plan` says whether a line needs one",
        ),
    }
}

/// `line 4`, `lines 4, 7`.
fn named(lines: &[String]) -> String {
    let word = if lines.len() == 1 { "line" } else { "lines" };
    format!("{word} {}", lines.join(", "))
}
