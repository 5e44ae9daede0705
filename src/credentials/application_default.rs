//! This machine's login to Google, found as Google's own libraries find it
//! (Application Default Credentials), and then gcloud's account.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::Mutex;

use super::cached::Cached;
use super::gcloud::Gcloud;
use super::library::LibraryCredential;
use super::service_account::ServiceAccountKey;
use super::{CredentialError, Secret, TokenSource, metadata, programs};
use crate::http::HttpClient;

/// Bucket and registry with one token.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The longest that Google's token servers may take.
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
        Self {
            named_file: variable(VARIABLE).map(PathBuf::from),
            well_known_file: configuration
                .map(|directory| directory.join("application_default_credentials.json")),
            metadata_host: variable("GCE_METADATA_HOST").and_then(|host| host.into_string().ok()),
            gcloud: programs::find(&programs::path_of_process(), program),
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
    Library(Box<LibraryCredential>),
    Ours(Box<dyn TokenSource>),
}

impl Chosen {
    fn describe(&self) -> String {
        match self {
            Self::Library(credential) => credential.describe().to_owned(),
            Self::Ours(source) => source.describe(),
        }
    }
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

    async fn choose(&self) -> Result<Chosen, CredentialError> {
        if let Some(path) = &self.places.named_file {
            let origin = format!("{VARIABLE}={}", path.display());
            return match from_file(path, &origin, &self.http).await? {
                Some(chosen) => Ok(chosen),
                None => Err(CredentialError::Misconfigured {
                    source_name: origin,
                    problem: "the file does not exist".to_owned(),
                }),
            };
        }
        if let Some(path) = &self.places.well_known_file
            && let Some(chosen) = from_file(path, &path.display().to_string(), &self.http).await?
        {
            return Ok(chosen);
        }
        let metadata_host = self.places.metadata_host.as_deref();
        if metadata::is_available(&self.http, metadata_host).await {
            let machine = LibraryCredential::of_machine(SCOPE)?;
            return Ok(Chosen::Library(Box::new(machine)));
        }
        if let Some(executable) = &self.places.gcloud {
            let gcloud = Cached::new(Gcloud::new(executable.clone()));
            return Ok(Chosen::Ours(Box::new(gcloud)));
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
async fn from_file(
    path: &Path,
    origin: &str,
    http: &HttpClient,
) -> Result<Option<Chosen>, CredentialError> {
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
    let kind = json.get("type").and_then(Value::as_str);
    let kind = kind.unwrap_or_default().to_owned();
    if kind == "service_account" {
        let key = ServiceAccountKey::new(json, origin, SCOPE, http)
            .map_err(|problem| misconfigured(problem.to_owned()))?;
        return Ok(Some(Chosen::Ours(Box::new(Cached::new(key)))));
    }
    match LibraryCredential::from_file(&kind, json, origin, SCOPE)? {
        Some(credential) => Ok(Some(Chosen::Library(Box::new(credential)))),
        None => Err(misconfigured(format!(
            "credentials of the type {kind:?} are not supported"
        ))),
    }
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
                let chosen = self.choose().await?;
                let _ = self.description.set(chosen.describe());
                chosen
            }
        };
        match slot.insert(chosen) {
            Chosen::Ours(source) => source.token().await,
            Chosen::Library(credential) => credential.token().await.map(Some),
        }
    }

    fn remaining(&self) -> Option<Duration> {
        match self.chosen.try_lock().ok()?.as_ref()? {
            Chosen::Library(_) => None,
            Chosen::Ours(source) => source.remaining(),
        }
    }

    async fn invalidate(&self) {
        let mut chosen = self.chosen.lock().await;
        match &*chosen {
            Some(Chosen::Ours(source)) => source.invalidate().await,
            // It has no way to forget its token, so it is made anew.
            _ => *chosen = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::credentials::test_server;
    use crate::http::HttpOptions;

    /// Looks at these places and at nothing of this machine.
    fn local_account(places: Places) -> LocalAccount {
        let places = Places {
            // Nothing listens there.
            metadata_host: places.metadata_host.or(Some("127.0.0.1:1".to_owned())),
            ..places
        };
        LocalAccount::new(places, HttpClient::new(&HttpOptions::default()).unwrap())
    }

    fn named(path: &Path) -> Places {
        Places {
            named_file: Some(path.to_owned()),
            ..Places::default()
        }
    }

    #[tokio::test]
    async fn nothing_found_says_where_it_was_sought_and_what_to_do() {
        let places = Places {
            well_known_file: Some("/nonexistent/adc.json".into()),
            ..Places::default()
        };
        let error = local_account(places).token().await.unwrap_err().to_string();
        for part in [
            VARIABLE,
            "/nonexistent/adc.json",
            "metadata",
            "gcloud auth application-default login",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn a_bad_file_is_an_error_that_shows_nothing_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.json");
        let absent = local_account(named(&file)).token().await.unwrap_err();
        assert!(absent.to_string().contains("does not exist"), "{absent}");
        for content in [
            r#"{"private_key": "hunter2""#,
            r#"{"type": "unheard_of", "private_key": "hunter2"}"#,
            r#"{"type": "service_account", "private_key": "hunter2"}"#,
            r#"{"type": "service_account", "client_email": "a@b", "private_key_id": "1", "project_id": "p", "private_key": "hunter2"}"#,
            r#"{"type": "authorized_user", "client_secret": "hunter2"}"#,
            r#"{"type": "external_account", "client_secret": "hunter2"}"#,
        ] {
            std::fs::write(&file, content).unwrap();
            let error = local_account(named(&file)).token().await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(
                text.contains(VARIABLE) && text.contains("key.json"),
                "{text}"
            );
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_service_accounts_key_becomes_an_access_token() {
        let (address, requests) =
            test_server::start("", r#"{"access_token": "ya29.sa", "expires_in": 3600}"#);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.json");
        let key = json!({
            "type": "service_account",
            "project_id": "p",
            "client_email": "deployer@p.iam.gserviceaccount.com",
            "private_key_id": "1",
            "private_key": include_str!("testdata/service-account-key.pem"),
            "token_uri": format!("http://{address}/token"),
        });
        std::fs::write(&file, key.to_string()).unwrap();
        let account = local_account(named(&file));
        for _ in 0..2 {
            let token = account.token().await.unwrap().unwrap();
            assert_eq!(token.reveal(), "ya29.sa");
        }
        account.invalidate().await;
        account.token().await.unwrap();
        assert!(
            account
                .describe()
                .contains("deployer@p.iam.gserviceaccount.com")
        );

        let requests = requests.lock().unwrap();
        assert_eq!(requests.len(), 2);
        let (_, assertion) = requests[0].split_once("&assertion=").unwrap();
        let parts: Vec<_> = assertion.split('.').collect();
        let claims =
            base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, parts[1]);
        let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
        assert_eq!(claims["scope"], SCOPE);
        assert_eq!(claims["aud"], format!("http://{address}/token"));
        assert_eq!(parts.len(), 3);
    }

    #[tokio::test]
    async fn a_users_login_is_refreshed() {
        let (address, requests) = test_server::start(
            "content-type: application/json\r\n",
            r#"{"access_token": "ya29.user", "expires_in": 3600, "token_type": "Bearer"}"#,
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory
            .path()
            .join("application_default_credentials.json");
        let login = json!({
            "type": "authorized_user",
            "client_id": "id",
            "client_secret": "secret",
            "refresh_token": "refresh",
            "token_uri": format!("http://{address}/token"),
        });
        std::fs::write(&file, login.to_string()).unwrap();
        let account = local_account(Places {
            well_known_file: Some(file),
            ..Places::default()
        });
        for _ in 0..2 {
            let token = account.token().await.unwrap().unwrap();
            assert_eq!(token.reveal(), "ya29.user");
        }
        assert_eq!(requests.lock().unwrap().len(), 1);
    }
}
