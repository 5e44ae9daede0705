//! Who we are to a registry: what Docker or podman know, else Google's token
//! for Google's registries, else nobody.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::docker_config::{DockerConfig, files_of_process, server_url};
use super::{AuthMethod, CredentialError, Secret, TokenSource, docker_helper, programs};

/// The user name that Google's registries expect with an access token.
const GOOGLE_USER: &str = "oauth2accesstoken";

/// What a registry, or its token server, is shown.
#[derive(Debug, Clone)]
pub enum LoginKind {
    /// Nothing.
    Anonymous,
    /// User name and password.
    Password {
        /// The user name.
        user: String,
        /// The password, or a token in its place.
        password: Secret,
    },
    /// A refresh token for the registry's token server.
    IdentityToken(Secret),
}

/// A login and where it came from.
#[derive(Debug, Clone)]
pub struct Login {
    /// What to show.
    pub kind: LoginKind,
    /// Who that is and which source said so, for error messages; no secret.
    pub description: String,
}

/// Finds the logins for registries, each once.
pub struct RegistryCredentials {
    files: Vec<PathBuf>,
    /// Where credential helpers are sought.
    program_directories: Vec<PathBuf>,
    google: Arc<dyn TokenSource>,
    /// Whether the user chose where Google's tokens come from.
    google_first: bool,
    found: Mutex<HashMap<String, Found>>,
}

struct Found {
    login: Login,
    /// Whether asking again may give another login.
    renewable: bool,
}

impl RegistryCredentials {
    /// Looks into the files that this process's environment names. `google` is
    /// the source that [`super::token_source`] made for `method`; if the user
    /// chose the method, it goes before the files on Google's registries.
    pub fn of_process(method: &AuthMethod, google: Arc<dyn TokenSource>) -> Self {
        let google_first = matches!(
            method,
            AuthMethod::Vault(_) | AuthMethod::AccessTokenFile(_)
        );
        Self::new(files_of_process(), google, google_first)
    }

    /// Looks into these files, in this order, in the format of Docker's
    /// `config.json`; those that do not exist are passed over.
    pub fn new(files: Vec<PathBuf>, google: Arc<dyn TokenSource>, google_first: bool) -> Self {
        Self {
            files,
            program_directories: programs::path_of_process(),
            google,
            google_first,
            found: Mutex::default(),
        }
    }

    /// The login for a registry, `HOST[:PORT]`.
    ///
    /// Where no source has one, the login is anonymous, and its description
    /// tells what was tried.
    ///
    /// # Errors
    /// Only if the source that the user chose for Google gives no token.
    pub async fn login(&self, host: &str) -> Result<Login, CredentialError> {
        if self.google_first && is_google(host) {
            return self.google_login().await;
        }
        let mut found = self.found.lock().await;
        if let Some(found) = found.get(host) {
            return Ok(found.login.clone());
        }
        let mut tried = Vec::new();
        let known = match self.login_in_files(host, &mut tried).await {
            Some(known) => known,
            None if is_google(host) => match self.google_login().await {
                // Not kept here: its source knows how long it is good.
                Ok(login) => return Ok(login),
                Err(error) => {
                    tried.push(error.to_string());
                    nobody(host, &tried)
                }
            },
            None => nobody(host, &tried),
        };
        let login = known.login.clone();
        found.insert(host.to_owned(), known);
        Ok(login)
    }

    /// Forgets a login that was refused. Whether asking again may give another:
    /// tokens run out, written passwords do not change.
    pub async fn forget(&self, host: &str) -> bool {
        match self.found.lock().await.remove(host) {
            Some(found) => found.renewable,
            None if is_google(host) => {
                self.google.invalidate().await;
                true
            }
            None => false,
        }
    }

    async fn login_in_files(&self, host: &str, tried: &mut Vec<String>) -> Option<Found> {
        for path in &self.files {
            let config = match DockerConfig::read(path) {
                Ok(Some(config)) => config,
                Ok(None) => continue,
                Err(problem) => {
                    tried.push(problem);
                    continue;
                }
            };
            if let Some(helper) = config.helper(host) {
                match docker_helper::ask(&self.program_directories, helper, server_url(host)).await
                {
                    Ok(Some(kind)) => {
                        let source = format!("docker-credential-{helper}");
                        return Some(Found::new(kind, &source, true));
                    }
                    Ok(None) => tried.push(format!("docker-credential-{helper} has no login")),
                    Err(problem) => tried.push(problem),
                }
            }
            match config.login(host) {
                Some(kind) => {
                    return Some(Found::new(kind, &path.display().to_string(), false));
                }
                None => tried.push(format!("{} has no login", path.display())),
            }
        }
        None
    }

    async fn google_login(&self) -> Result<Login, CredentialError> {
        Ok(match self.google.token().await? {
            Some(token) => Login {
                kind: LoginKind::Password {
                    user: GOOGLE_USER.to_owned(),
                    password: token,
                },
                description: self.google.describe(),
            },
            None => Login {
                kind: LoginKind::Anonymous,
                description: self.google.describe(),
            },
        })
    }
}

impl Found {
    fn new(kind: LoginKind, source: &str, renewable: bool) -> Self {
        let description = match &kind {
            LoginKind::Password { user, .. } => format!("{user} (from {source})"),
            _ => format!("the identity token from {source}"),
        };
        Self {
            login: Login { kind, description },
            renewable,
        }
    }
}

fn nobody(host: &str, tried: &[String]) -> Found {
    let why = match tried.is_empty() {
        true => "no login was found".to_owned(),
        false => tried.join(", "),
    };
    Found {
        login: Login {
            kind: LoginKind::Anonymous,
            description: format!("nobody ({why}; run `docker login {host}`)"),
        },
        renewable: false,
    }
}

/// Whether a registry is Google's, and so may see Google's tokens.
pub(crate) fn is_google(host: &str) -> bool {
    host == "gcr.io" || host.ends_with(".gcr.io") || host.ends_with(".pkg.dev")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    #[async_trait::async_trait]
    impl TokenSource for Fixed {
        fn describe(&self) -> String {
            "a test's account".to_owned()
        }

        async fn token(&self) -> Result<Option<Secret>, CredentialError> {
            Ok(Some(Secret::new("google-token")))
        }

        async fn invalidate(&self) {}
    }

    async fn user(credentials: &RegistryCredentials, host: &str) -> String {
        match credentials.login(host).await.unwrap().kind {
            LoginKind::Password { user, .. } => user,
            LoginKind::IdentityToken(_) => "<token>".to_owned(),
            LoginKind::Anonymous => "nobody".to_owned(),
        }
    }

    #[tokio::test]
    async fn googles_token_goes_to_googles_registries_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        let json = r#"{"auths": {"eu.gcr.io": {"username": "docker", "password": "p"}}}"#;
        std::fs::write(&file, json).unwrap();
        let by_chance = RegistryCredentials::new(vec![file.clone()], Arc::new(Fixed), false);
        let chosen = RegistryCredentials::new(vec![file], Arc::new(Fixed), true);
        for (host, expected_by_chance, expected_chosen) in [
            ("europe-docker.pkg.dev", GOOGLE_USER, GOOGLE_USER),
            ("gcr.io", GOOGLE_USER, GOOGLE_USER),
            ("eu.gcr.io", "docker", GOOGLE_USER),
            ("gcr.io.evil.test", "nobody", "nobody"),
            ("evilgcr.io", "nobody", "nobody"),
            ("gcr.io:5000", "nobody", "nobody"),
            ("127.0.0.1:5000", "nobody", "nobody"),
            ("docker.io", "nobody", "nobody"),
        ] {
            assert_eq!(user(&by_chance, host).await, expected_by_chance, "{host}");
            assert_eq!(user(&chosen, host).await, expected_chosen, "{host}");
        }
    }

    #[tokio::test]
    async fn nobody_is_told_what_was_tried() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        std::fs::write(&file, r#"{"credsStore": "no-such-helper"}"#).unwrap();
        let credentials = RegistryCredentials::new(vec![file], Arc::new(Fixed), false);
        let login = credentials.login("registry.test").await.unwrap();
        assert!(
            login
                .description
                .contains("docker-credential-no-such-helper is not on the PATH"),
            "{}",
            login.description
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_helper_is_asked_once_until_its_login_is_refused() {
        let text = r#"[ "$1" = get ] || exit 9
            cd "$(dirname "$0")" && echo asked >> count
            read -r server
            case $server in
                registry.test) echo '{"Username": "AWS", "Secret": "s3cret"}' ;;
                token.test) echo '{"Username": "<token>", "Secret": "refresh"}' ;;
                broken.test) echo 's3cret'; exit 1 ;;
                *) echo 'credentials not found in native keychain'; exit 1 ;;
            esac"#;
        let (directory, _) = programs::script("docker-credential-test", text);
        let file = directory.path().join("config.json");
        let json = r#"{"credsStore": "test", "auths": {
            "unknown.test": {"username": "written", "password": "p"},
            "evil.test": {}
        }, "credHelpers": {"evil.test": "../evil"}}"#;
        std::fs::write(&file, json).unwrap();
        let mut credentials = RegistryCredentials::new(vec![file], Arc::new(Fixed), false);
        credentials.program_directories = vec![directory.path().to_owned()];
        let asked = || {
            let count = std::fs::read_to_string(directory.path().join("count"));
            count.unwrap().lines().count()
        };

        for _ in 0..2 {
            assert_eq!(user(&credentials, "registry.test").await, "AWS");
        }
        assert_eq!(asked(), 1);
        assert!(credentials.forget("registry.test").await);
        assert_eq!(user(&credentials, "registry.test").await, "AWS");
        assert_eq!(asked(), 2);

        assert_eq!(user(&credentials, "token.test").await, "<token>");
        assert_eq!(user(&credentials, "unknown.test").await, "written");
        assert!(!credentials.forget("unknown.test").await);
        for host in ["broken.test", "evil.test"] {
            let login = credentials.login(host).await.unwrap();
            assert!(matches!(login.kind, LoginKind::Anonymous));
            assert!(login.description.contains("credential"), "{login:?}");
            assert!(!format!("{login:?}").contains("s3cret"));
        }
    }
}
