//! Who a deploy would be, to the bucket and to the registry, and for how long.

use std::time::Duration;

use super::finding::Finding;
use crate::artifacts::Target;
use crate::bucket::BucketLocation;
use crate::cli::services::Services;
use crate::oci::Repository;
use crate::ui::CommandError;

const ABOUT: &str = "login";

/// Below this, a long push may outlive the token, if it is not renewed by itself.
const SHORT: Duration = Duration::from_secs(5 * 60);

/// Asks for what the bucket and the registry would be shown. No secret is printed.
pub(super) async fn logins(services: &Services, target: &Target) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Ok(location) = target.bucket() {
        findings.push(of_bucket(services, &location).await);
    }
    if let Ok(Repository::Registry { host, .. }) = target.repository() {
        findings.push(of_registry(services, &host).await);
    }
    findings
}

async fn of_bucket(services: &Services, location: &BucketLocation) -> Finding {
    match location {
        BucketLocation::Directory { .. } => {
            Finding::good(ABOUT, "the bucket is a folder, which needs no login")
        }
        BucketLocation::GoogleCloudStorage { .. } if is_emulated() => Finding::good(
            ABOUT,
            "STORAGE_EMULATOR_HOST is set: the bucket is an emulator's, which needs no login",
        ),
        BucketLocation::GoogleCloudStorage { .. } => of_google(services).await,
        _ => Finding::good(
            ABOUT,
            "the bucket is asked with what AWS_* or AZURE_* say, or with this machine's role",
        ),
    }
}

async fn of_google(services: &Services) -> Finding {
    let tokens = services.tokens();
    let given = tokens.token().await;
    let who = tokens.describe();
    match (given, tokens.remaining()) {
        (Err(error), _) => Finding::bad(ABOUT, &CommandError::from(error)),
        (Ok(None), _) => Finding::good(ABOUT, format!("to Google: {who}")),
        (Ok(Some(_)), None) => Finding::good(
            ABOUT,
            format!("to Google: {who}; its source renews the token"),
        ),
        (Ok(Some(_)), Some(left)) if left < SHORT => Finding::warning(
            ABOUT,
            format!("to Google: {who}; the token ends in {}", time(left)),
            "log in again before a long deploy",
        ),
        (Ok(Some(_)), Some(left)) => Finding::good(
            ABOUT,
            format!("to Google: {who}; the token is good for {}", time(left)),
        ),
    }
}

async fn of_registry(services: &Services, host: &str) -> Finding {
    match services.registry_login(host).await {
        Ok(who) => Finding::good(ABOUT, format!("to {host}: {who}")),
        Err(error) => Finding::bad(ABOUT, &CommandError::from(error)),
    }
}

fn is_emulated() -> bool {
    std::env::var_os("STORAGE_EMULATOR_HOST").is_some_and(|address| !address.is_empty())
}

/// `59 min`, `40 s`.
fn time(left: Duration) -> String {
    match left.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}
