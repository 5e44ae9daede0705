//! `forebay doctor`: looks at everything that a deploy relies on, before one does.

use std::fmt::Write as _;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::arguments::EnvironmentArguments;
use super::context::Context;
use super::describe::DriftDocument;
use super::opened::{Opened, Permissions};
use crate::artifacts::{BuildError, Workspace};
use crate::environment::{Environment, EnvironmentError, Status};
use crate::project::DagFormat;
use crate::registry::ManifestName;
use crate::ui::{CommandError, Exit, count};

#[derive(Debug, Args)]
#[command(
    after_help = "It writes two things, which nobody sees: an object beside the environment's records, which it deletes again, and a blob of two bytes in the registry. Nothing in dags/ is touched."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    environment: EnvironmentArguments,
}

/// What `--json` prints (`schema/doctor.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    /// Whether a deploy can work.
    healthy: bool,
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at.
    about: &'static str,
    verdict: Verdict,
    /// What is so.
    says: String,
    /// What mends it; null where nothing needs to be mended.
    remedy: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Warning,
    Bad,
}

impl Finding {
    fn good(about: &'static str, says: impl Into<String>) -> Self {
        Self {
            about,
            verdict: Verdict::Good,
            says: says.into(),
            remedy: None,
            exit: Exit::Done,
        }
    }

    fn warning(about: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warning,
            remedy: Some(remedy.into()),
            ..Self::good(about, says)
        }
    }

    fn bad(about: &'static str, failure: &CommandError) -> Self {
        Self {
            verdict: Verdict::Bad,
            remedy: failure.next_step().map(str::to_owned),
            exit: failure.exit(),
            ..Self::good(about, failure.reason())
        }
    }
}

/// How many generations back a rollback is likely to be wanted.
const LOOK_BACK: usize = 5;

/// A clock that is further off than this makes tokens invalid before their time.
const TOLERATED: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let Opened {
        target,
        environment,
        ..
    } = Opened::new(&workspace, &arguments.environment, Permissions::default())?;
    let mut findings = vec![python(&workspace), format(&workspace)];
    context.block_on(async {
        findings.extend(bucket(&environment).await);
        findings.push(registry(&environment).await);
        Ok(())
    })?;
    let worst = findings
        .iter()
        .find(|finding| finding.verdict == Verdict::Bad)
        .map_or(Exit::Done, |finding| finding.exit);
    let document = Document {
        environment: target.environment.to_string(),
        healthy: worst == Exit::Done,
        findings,
    };
    context.printer.result(&document, || text(&document))?;
    Ok(worst)
}

fn python(workspace: &Workspace) -> Finding {
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

fn format(workspace: &Workspace) -> Finding {
    const ABOUT: &str = "airflow";
    match workspace.project().settings.dags.format {
        DagFormat::Default => {
            Finding::good(ABOUT, "the DAG files are written for Airflow 1.10, 2 and 3")
        }
        DagFormat::Bigflow1_11 => Finding::warning(
            ABOUT,
            "the DAG files are BigFlow's: they need Airflow 2.3 to 2.9, and do not import in Airflow 3",
            "write format = \"default\" into [tool.forebay.dags]",
        ),
    }
}

async fn bucket(environment: &Environment) -> Vec<Finding> {
    let mut findings = Vec::new();
    let status = match environment.status().await {
        Ok(status) => status,
        Err(error) => return vec![Finding::bad("bucket", &error.into())],
    };
    match environment.probe_bucket().await {
        Ok(server_time) => {
            findings.push(Finding::good(
                "bucket",
                "objects can be listed, written, read and deleted",
            ));
            findings.push(clock(server_time));
        }
        Err(error) => findings.push(Finding::bad("bucket", &error.into())),
    }
    findings.extend(state(&status));
    for found in [
        names(environment).await,
        old_files(environment).await,
        rollbacks(environment).await,
    ] {
        match found {
            Ok(more) => findings.extend(more),
            Err(error) => findings.push(Finding::bad("bucket", &error.into())),
        }
    }
    findings
}

fn clock(server_time: Timestamp) -> Finding {
    const ABOUT: &str = "clock";
    let off = Timestamp::now().duration_since(server_time);
    match off.abs() <= TOLERATED {
        true => Finding::good(
            ABOUT,
            "this machine's clock agrees with the bucket's server",
        ),
        false => Finding::warning(
            ABOUT,
            format!(
                "this machine's clock is {} s {} the bucket's server",
                off.abs().as_secs(),
                if off.is_positive() {
                    "ahead of"
                } else {
                    "behind"
                }
            ),
            "set the clock (NTP): logins fail when it is wrong; what holds an environment is judged by the server's",
        ),
    }
}

fn state(status: &Status) -> Vec<Finding> {
    const ABOUT: &str = "deploys";
    let mut findings = Vec::new();
    match (&status.applying, status.held) {
        (None, _) => {}
        (Some(intent), true) => findings.push(Finding::warning(
            ABOUT,
            format!(
                "{} is applying generation {}",
                intent.holder, intent.reference.generation
            ),
            "wait until it is done",
        )),
        (Some(intent), false) => findings.push(Finding::warning(
            ABOUT,
            format!(
                "generation {} was left unfinished by {}",
                intent.reference.generation, intent.holder
            ),
            "`forebay resume` carries it to its end, `forebay abort` takes it back; `forebay deploy` does the first by itself",
        )),
    }
    for drifted in &status.drift {
        findings.push(Finding::warning(
            ABOUT,
            DriftDocument::from(drifted).to_string(),
            "`forebay deploy --restore-drift` puts back what was recorded",
        ));
    }
    if findings.is_empty() {
        let says = match &status.live {
            Some(record) => format!(
                "generation {} is live as it was recorded",
                record.generation
            ),
            None => "nothing was deployed yet".to_owned(),
        };
        findings.push(Finding::good(ABOUT, says));
    }
    findings
}

async fn names(environment: &Environment) -> Result<Vec<Finding>, EnvironmentError> {
    let names = environment.broken_names().await?.into_iter();
    Ok(names
        .map(|name| {
            Finding::warning(
                "names",
                format!("{}: {}", name.key, name.problem),
                "delete or rename it: Composer's synchronisation of all of dags/ stops at it",
            )
        })
        .collect())
}

async fn old_files(environment: &Environment) -> Result<Vec<Finding>, EnvironmentError> {
    let live = environment.observe(None).await?;
    let Some(files) = environment.find_old_files(&live).await? else {
        return Ok(Vec::new());
    };
    let failure = CommandError::from(files.undecided());
    Ok(vec![Finding::warning(
        "bigflow",
        failure.reason(),
        failure.next_step().unwrap_or_default(),
    )])
}

/// Whether the images of the latest generations are still there.
async fn rollbacks(environment: &Environment) -> Result<Vec<Finding>, EnvironmentError> {
    const ABOUT: &str = "rollback";
    let history = environment.history(Some(LOOK_BACK)).await?;
    let mut findings = Vec::new();
    for record in &history {
        for image in &record.images {
            let name = ManifestName::Digest(image.digest);
            match environment.find_image(&name).await {
                Ok(_) => {}
                Err(EnvironmentError::ImageMissing { image }) => findings.push(Finding::warning(
                    ABOUT,
                    format!(
                        "generation {} cannot be restored: the image {image} is not in the registry",
                        record.generation
                    ),
                    "keep the registry's cleanup away from tags that begin with forebay-; a deploy from the same sources pushes it again",
                )),
                Err(error) => return Err(error),
            }
        }
    }
    if findings.is_empty() && history.len() > 1 {
        findings.push(Finding::good(
            ABOUT,
            format!(
                "the images of the last {} are in the registry",
                count(history.len(), "generation")
            ),
        ));
    }
    Ok(findings)
}

async fn registry(environment: &Environment) -> Finding {
    const ABOUT: &str = "registry";
    match environment.probe_registry().await {
        Ok(()) => Finding::good(ABOUT, "images can be read and pushed"),
        Err(error) => Finding::bad(ABOUT, &error.into()),
    }
}

fn text(document: &Document) -> String {
    let mut text = String::new();
    for finding in &document.findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "warning",
            Verdict::Bad => "BAD",
        };
        let _ = writeln!(text, "{mark:<8} {:<9} {}", finding.about, finding.says);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "{:<18} {remedy}", "");
        }
    }
    let of = |verdict| {
        let findings = document.findings.iter();
        findings
            .filter(|finding| finding.verdict == verdict)
            .count()
    };
    let _ = match (of(Verdict::Bad), of(Verdict::Warning)) {
        (0, 0) => writeln!(text, "{}: a deploy can work", document.environment),
        (0, warnings) => writeln!(
            text,
            "{}: a deploy can work; {}",
            document.environment,
            count(warnings, "warning")
        ),
        (bad, _) => writeln!(
            text,
            "{}: a deploy would fail: {}",
            document.environment,
            count(bad, "finding")
        ),
    };
    text
}
