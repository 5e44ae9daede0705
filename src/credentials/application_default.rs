//! This machine's login to Google, found as Google's own libraries find it
//! (Application Default Credentials), and then gcloud's account.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use google_cloud_auth::credentials::{
    AccessTokenCredentials, external_account, impersonated, mds, service_account, user_account,
};
use google_cloud_auth::errors::CredentialsError;
use serde_json::Value;
use tokio::sync::Mutex;

use super::cached::Cached;
use super::gcloud::Gcloud;
use super::{CredentialError, Secret, TokenSource, metadata};
use crate::http::HttpClient;

/// Bucket and registry with one token.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The longest that Google's token servers may take.
const TIMEOUT: Duration = Duration::from_secs(60);
const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// Where to look; what a process finds in its environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// `GOOGLE_APPLICATION_CREDENTIALS`.
    pub(super) named_file: Option<PathBuf>,
    /// What `gcloud auth application-default login` writes.
    pub(super) well_known_file: Option<PathBuf>,
    /// `GCE_METADATA_HOST`.
    pub(super) metadata_host: Option<String>,
    /// gcloud, if it is on the `PATH`.
    pub(super) gcloud: Option<PathBuf>,
}

impl Places {
    fn of_process() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let configuration = match variable("CLOUDSDK_CONFIG") {
            Some(directory) => Some(PathBuf::from(directory)),
            None if cfg!(windows) => {
                variable("APPDATA").map(|roaming| Path::new(&roaming).join("gcloud"))
            }
            None => variable("HOME").map(|home| Path::new(&home).join(".config/gcloud")),
        };
        let program = if cfg!(windows) {
            "gcloud.cmd"
        } else {
            "gcloud"
        };
        let gcloud = std::env::split_paths(&variable("PATH").unwrap_or_default())
            .map(|directory| directory.join(program))
            .find(|candidate| candidate.is_file());
        Self {
            named_file: variable(VARIABLE).map(PathBuf::from),
            well_known_file: configuration
                .map(|directory| directory.join("application_default_credentials.json")),
            metadata_host: variable("GCE_METADATA_HOST").and_then(|host| host.into_string().ok()),
            gcloud,
        }
    }
}

/// The first login that is found, in this order: the file that the environment
/// names, the well-known file, the metadata server, gcloud's account.
pub(super) struct LocalAccount {
    places: Places,
    http: HttpClient,
    chosen: Mutex<Option<Chosen>>,
    description: OnceLock<String>,
}

enum Chosen {
    /// Keeps and renews its tokens by itself.
    Library(AccessTokenCredentials),
    Gcloud(Cached<Gcloud>),
}

impl LocalAccount {
    pub(super) fn from_process(http: HttpClient) -> Self {
        Self::new(Places::of_process(), http)
    }

    pub(super) fn new(places: Places, http: HttpClient) -> Self {
        Self {
            places,
            http,
            chosen: Mutex::new(None),
            description: OnceLock::new(),
        }
    }

    async fn choose(&self) -> Result<(Chosen, String), CredentialError> {
        if let Some(path) = &self.places.named_file {
            let origin = format!("{VARIABLE}={}", path.display());
            return match from_file(path, &origin).await? {
                Some(chosen) => Ok(chosen),
                None => Err(CredentialError::Misconfigured {
                    source_name: origin,
                    problem: "the file does not exist".to_owned(),
                }),
            };
        }
        if let Some(path) = &self.places.well_known_file
            && let Some(chosen) = from_file(path, &path.display().to_string()).await?
        {
            return Ok(chosen);
        }
        let metadata_host = self.places.metadata_host.as_deref();
        if metadata::is_available(&self.http, metadata_host).await {
            let credentials = (mds::Builder::default().with_scopes([SCOPE]))
                .build_access_token_credentials()
                .map_err(|_| CredentialError::Misconfigured {
                    source_name: "the metadata server".to_owned(),
                    problem: "it cannot be used".to_owned(),
                })?;
            let description = "the service account of this machine (metadata server)".to_owned();
            return Ok((Chosen::Library(credentials), description));
        }
        if let Some(executable) = &self.places.gcloud {
            let gcloud = Cached::new(Gcloud::new(executable.clone()));
            let description = gcloud.describe();
            return Ok((Chosen::Gcloud(gcloud), description));
        }
        let well_known = (self.places.well_known_file.as_deref()).map_or_else(
            || "gcloud's folder".to_owned(),
            |path| path.display().to_string(),
        );
        Err(CredentialError::Misconfigured {
            source_name: "Google credentials".to_owned(),
            problem: format!(
                "none were found: {VARIABLE} is not set, {well_known} does not exist, no metadata server answers, \
                 and gcloud is not on the PATH; run `gcloud auth application-default login`, set {VARIABLE}, \
                 or use --access-token-file or --auth-method vault"
            ),
        })
    }
}

/// Reads a credential file; `None` if there is none.
async fn from_file(path: &Path, origin: &str) -> Result<Option<(Chosen, String)>, CredentialError> {
    let misconfigured = |problem: String| CredentialError::Misconfigured {
        source_name: origin.to_owned(),
        problem,
    };
    let bytes = match tokio::fs::read(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(misconfigured(format!("the file cannot be read: {error}"))),
    };
    // The parser's message could quote a key.
    let json: Value = serde_json::from_slice(&bytes)
        .map_err(|_| misconfigured("the file is not JSON".to_owned()))?;
    let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
    let kind = text("type").unwrap_or_default();
    let principal = text("client_email");
    let built = match kind.as_str() {
        "service_account" => service_account::Builder::new(json)
            .with_access_specifier(service_account::AccessSpecifier::from_scopes([SCOPE]))
            .build_access_token_credentials(),
        "authorized_user" => user_account::Builder::new(json)
            .with_scopes([SCOPE])
            .build_access_token_credentials(),
        "external_account" => external_account::Builder::new(json)
            .with_scopes([SCOPE])
            .build_access_token_credentials(),
        "impersonated_service_account" => impersonated::Builder::new(json)
            .with_scopes([SCOPE])
            .build_access_token_credentials(),
        other => {
            return Err(misconfigured(format!(
                "credentials of the type {other:?} are not supported"
            )));
        }
    };
    let credentials = built.map_err(|error| {
        let problem = if error.is_missing_field() {
            "a member is missing"
        } else {
            "it is not valid"
        };
        misconfigured(format!("as a credential of the type {kind}, {problem}"))
    })?;
    let principal = principal.map_or_else(String::new, |principal| format!(" {principal}"));
    let description = format!("the {}{principal} ({origin})", kind.replace('_', " "));
    Ok(Some((Chosen::Library(credentials), description)))
}

/// What went wrong, without the library's message: it quotes the token server's answer.
fn explain(error: &CredentialsError) -> String {
    if error.to_string().contains("invalid_grant") {
        return "the login has run out or was revoked; log in again".to_owned();
    }
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = cause {
        if let Some(transport) = current.downcast_ref::<reqwest::Error>() {
            return match transport.status() {
                Some(status) => format!("the token server answered {status}"),
                None => "the token server cannot be reached".to_owned(),
            };
        }
        cause = current.source();
    }
    "the credential was refused".to_owned()
}

#[async_trait]
impl TokenSource for LocalAccount {
    fn describe(&self) -> String {
        let unknown = || "this machine's Google login".to_owned();
        self.description.get().cloned().unwrap_or_else(unknown)
    }

    async fn token(&self) -> Result<Option<Secret>, CredentialError> {
        let mut slot = self.chosen.lock().await;
        let chosen = match slot.take() {
            Some(chosen) => chosen,
            None => {
                let (chosen, description) = self.choose().await?;
                let _ = self.description.set(description);
                chosen
            }
        };
        let chosen = slot.insert(chosen);
        match chosen {
            Chosen::Gcloud(gcloud) => gcloud.token().await,
            Chosen::Library(credentials) => {
                let refused = |problem: String| CredentialError::Refused {
                    source_name: self.describe(),
                    problem,
                };
                let token = tokio::time::timeout(TIMEOUT, credentials.access_token())
                    .await
                    .map_err(|_| refused("the token server does not answer".to_owned()))?
                    .map_err(|error| refused(explain(&error)))?;
                Ok(Some(Secret::new(token.token)))
            }
        }
    }

    async fn invalidate(&self) {
        let mut chosen = self.chosen.lock().await;
        match &*chosen {
            Some(Chosen::Gcloud(gcloud)) => gcloud.invalidate().await,
            // It has no way to forget its token, so it is made anew.
            _ => *chosen = None,
        }
    }
}
