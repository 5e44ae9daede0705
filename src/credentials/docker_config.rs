//! Logins in the files of Docker (`config.json`) and podman (`auth.json`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;

use super::{LoginKind, Secret};

/// The members of a configuration file that concern logins.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct DockerConfig {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    /// Base64 of `USER:PASSWORD`.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

/// Docker Hub's key in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The files, the one to believe first at the front.
pub(super) fn files_of_process() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = variable("HOME").or_else(|| variable("USERPROFILE"));
    let in_home = |path: &str| home.as_ref().map(|home| Path::new(home).join(path));
    let docker = match variable("DOCKER_CONFIG") {
        Some(directory) => Some(Path::new(&directory).join("config.json")),
        None => in_home(".docker/config.json"),
    };
    [
        variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
        docker,
        variable("XDG_RUNTIME_DIR").map(|run| Path::new(&run).join("containers/auth.json")),
        in_home(".config/containers/auth.json"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl DockerConfig {
    /// Reads one file; `None` if there is none.
    ///
    /// # Errors
    /// What is wrong with the file, without its content.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, String> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        };
        Self::parse(&bytes)
            .map(Some)
            .map_err(|_| format!("{} is not valid JSON", path.display()))
    }

    pub(super) fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// The helper to ask for `host`: its own, else the one for all.
    pub(super) fn helper(&self, host: &str) -> Option<&str> {
        let own = (self.cred_helpers.iter()).find(|(key, _)| is_key_of(key, host));
        own.map(|(_, helper)| helper.as_str())
            .or(self.creds_store.as_deref())
            .filter(|helper| !helper.is_empty())
    }

    /// The login that is written in the file itself.
    pub(super) fn login(&self, host: &str) -> Option<LoginKind> {
        let (_, auth) = self.auths.iter().find(|(key, _)| is_key_of(key, host))?;
        let full = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = full(&auth.identity_token) {
            return Some(LoginKind::IdentityToken(Secret::new(token)));
        }
        let (user, password) = match (full(&auth.username), full(&auth.password)) {
            (Some(user), Some(password)) => (user, password),
            _ => {
                let decoded = base64::engine::general_purpose::STANDARD
                    .decode(full(&auth.auth)?.trim())
                    .ok()?;
                let text = String::from_utf8(decoded).ok()?;
                let (user, password) = text.split_once(':')?;
                // Old versions of Docker padded with zero bytes.
                (user.to_owned(), password.trim_end_matches('\0').to_owned())
            }
        };
        Some(LoginKind::of_pair(user, password))
    }
}

/// What a helper is asked for.
pub(super) fn server_url(host: &str) -> &str {
    if is_docker_hub(host) {
        DOCKER_HUB
    } else {
        host
    }
}

fn is_docker_hub(host: &str) -> bool {
    matches!(
        host,
        "docker.io" | "index.docker.io" | "registry-1.docker.io"
    )
}

/// Keys are hosts, or addresses of which only the host counts.
fn is_key_of(key: &str, host: &str) -> bool {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    key == host || (is_docker_hub(key) && is_docker_hub(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> DockerConfig {
        serde_json::from_str(json).unwrap()
    }

    fn pair(kind: Option<LoginKind>) -> Option<(String, String)> {
        match kind? {
            LoginKind::Password { user, password } => Some((user, password.reveal().to_owned())),
            LoginKind::IdentityToken(token) => Some(("<token>".into(), token.reveal().to_owned())),
            LoginKind::Anonymous => None,
        }
    }

    #[test]
    fn logins_in_a_file_are_found_by_host() {
        let config = config(
            r#"{"auths": {
                "registry.test:5000": {"auth": "dXNlcjpwYTpzcw=="},
                "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
                "token.test": {"auth": "eDp5", "identitytoken": "refresh"},
                "empty.test": {},
                "broken.test": {"auth": "%%%"}
            }}"#,
        );
        let login = |host| pair(config.login(host));
        let expect = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(login("registry.test:5000"), expect("user", "pa:ss"));
        assert_eq!(login("docker.io"), expect("hub", "p"));
        assert_eq!(login("token.test"), expect("<token>", "refresh"));
        for host in ["registry.test", "empty.test", "broken.test", "other.test"] {
            assert_eq!(login(host), None, "{host}");
        }
    }

    #[test]
    fn a_hosts_own_helper_comes_before_the_store() {
        let config = config(r#"{"credsStore": "desktop", "credHelpers": {"gcr.io": "gcloud"}}"#);
        assert_eq!(config.helper("gcr.io"), Some("gcloud"));
        assert_eq!(config.helper("docker.io"), Some("desktop"));
    }
}
