//! What a deploy needs of bucket and registry, tried out; and what waits there to surprise it.

use jiff::{SignedDuration, Timestamp};

use super::finding::Finding;
use crate::cli::describe::DriftDocument;
use crate::environment::{Environment, EnvironmentError, Status};
use crate::registry::ManifestName;
use crate::ui::{CommandError, count};

/// How many generations back a rollback is likely to be wanted.
const LOOK_BACK: usize = 5;

/// A clock that is further off than this makes tokens invalid before their time.
const TOLERATED: SignedDuration = SignedDuration::from_secs(60);

pub(super) async fn bucket(environment: &Environment) -> Vec<Finding> {
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
    findings.extend(others(&status));
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

/// Files that this environment did not write; no deploy touches them.
fn others(status: &Status) -> Option<Finding> {
    (status.foreign > 0).then(|| {
        let files = count(status.foreign, "file");
        let belong = if status.foreign == 1 {
            "belongs"
        } else {
            "belong"
        };
        Finding::good(
            "others",
            format!("{files} in dags/ {belong} to others, and no deploy touches them"),
        )
    })
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

/// Whether images can be read and pushed.
pub(super) async fn registry(environment: &Environment) -> Finding {
    const ABOUT: &str = "registry";
    match environment.probe_registry().await {
        Ok(()) => Finding::good(ABOUT, "images can be read and pushed"),
        Err(error) => Finding::bad(ABOUT, &error.into()),
    }
}
