//! Access tokens from the Google secrets engine of a Vault server, asked for
//! exactly as BigFlow does: GET of the full address with `X-Vault-Token`, and
//! the token at `data.token`.

mod settings;
mod wire;

pub use settings::{SecretText, VaultLogin, VaultOptions, VaultSettings};

use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::sync::Mutex;
use url::Url;

use self::settings::misconfigured;
use self::wire::{AppRoleLogin, Auth, JwtLogin, Login, LookedUp, TokenAnswer, short};
use super::cached::{Mint, Minted};
use super::{CredentialError, Secret};
use crate::http::{HttpClient, HttpOptions, read_body};

const MAX_ANSWER: usize = 1 << 20;
/// A login is done anew when less than this is left of it (or half of a short one).
const RENEW_BEFORE_END: Duration = Duration::from_secs(60);

/// One path of one Vault server.
pub(super) struct Vault {
    settings: VaultSettings,
    http: HttpClient,
    /// The Vault token of a login that we did, and until when it is used.
    session: Mutex<Option<(Secret, Option<Instant>)>>,
}

/// An answer with its body, which may hold secrets.
struct Answer {
    status: StatusCode,
    body: Secret,
}

impl Vault {
    pub(super) fn new(settings: VaultSettings, http: &HttpClient) -> Result<Self, CredentialError> {
        let http = if settings.verify == http.options().verification {
            http.clone()
        } else {
            let options = HttpOptions {
                verification: settings.verify.clone(),
                ..http.options().clone()
            };
            HttpClient::new(&options)
                .map_err(|error| misconfigured(format!("vault_endpoint_verify: {error}")))?
        };
        Ok(Self {
            settings,
            http,
            session: Mutex::default(),
        })
    }

    fn refused(&self, problem: impl Into<String>) -> CredentialError {
        CredentialError::Refused {
            source_name: self.describe(),
            problem: problem.into(),
        }
    }

    /// `/v1/PATH` of the server, wherever below its host it is.
    fn api(&self, path: &str) -> Url {
        let mut url = self.settings.endpoint.clone();
        let root = match url.path().find("/v1/") {
            Some(end) => url.path()[..end].to_owned(),
            None => String::new(),
        };
        url.set_query(None);
        url.set_path(&format!("{root}/v1/{path}"));
        url
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        token: Option<&Secret>,
        body: Option<String>,
    ) -> Result<Answer, CredentialError> {
        let mut request = self.http.request(method, url);
        if let Some(token) = token {
            let mut header = http::HeaderValue::from_str(token.reveal().trim()).map_err(|_| {
                self.refused("the Vault token has characters that no header can carry")
            })?;
            header.set_sensitive(true);
            request = request.header("x-vault-token", header);
        }
        if let Some(namespace) = &self.settings.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let failed = |error: crate::http::SendError| self.refused(error.to_string());
        let response = self.http.send(request).await.map_err(failed)?;
        let status = response.status();
        let body = read_body(response, MAX_ANSWER).await.map_err(failed)?;
        let body = body.ok_or_else(|| self.refused("its answer is too long"))?;
        Ok(Answer {
            status,
            body: Secret::new(String::from_utf8_lossy(&body)),
        })
    }

    /// A Vault token, and whether another login may give a better one.
    async fn session(&self) -> Result<(Secret, bool), CredentialError> {
        let login = match &self.settings.login {
            VaultLogin::Token { secret, .. } => return Ok((secret.clone(), false)),
            VaultLogin::TokenFile(file) => return Ok((self.read_secret(file).await?, false)),
            login => login,
        };
        let mut session = self.session.lock().await;
        if let Some((token, until)) = &*session
            && until.is_none_or(|until| Instant::now() < until)
        {
            return Ok((token.clone(), true));
        }
        let auth = self.log_in(login).await?;
        let life = Duration::from_secs(auth.lease_duration);
        // A lease of 0 seconds never ends.
        let until = (auth.lease_duration > 0)
            .then(|| Instant::now().checked_add(life - RENEW_BEFORE_END.min(life / 2)))
            .flatten();
        let token = Secret::new(auth.client_token);
        *session = Some((token.clone(), until));
        Ok((token, false))
    }

    async fn log_in(&self, login: &VaultLogin) -> Result<Auth, CredentialError> {
        let (mount, body) = match login {
            VaultLogin::AppRole {
                mount,
                role_id,
                secret_id,
            } => {
                let secret_id = match secret_id {
                    SecretText::Given(secret) => secret.clone(),
                    SecretText::File(file) => self.read_secret(file).await?,
                };
                let body = serde_json::to_string(&AppRoleLogin {
                    role_id,
                    secret_id: secret_id.reveal().trim(),
                });
                (mount, body)
            }
            VaultLogin::Jwt { mount, role, file } => {
                let jwt = self.read_secret(file).await?;
                let body = serde_json::to_string(&JwtLogin {
                    role: role.as_deref(),
                    jwt: jwt.reveal().trim(),
                });
                (mount, body)
            }
            VaultLogin::Token { .. } | VaultLogin::TokenFile(_) => {
                return Err(self.refused("a token needs no login"));
            }
        };
        let body = body.map_err(|_| self.refused("the login cannot be written as JSON"))?;
        let path = format!("auth/{mount}/login");
        let answer = self
            .send(Method::POST, self.api(&path), None, Some(body))
            .await?;
        if !answer.status.is_success() {
            return Err(self.refused(match answer.status.as_u16() {
                400 | 401 | 403 => format!(
                    "it refused the login at {path} ({}): role, proof or mount is wrong, or the proof has run out or was used up",
                    answer.status
                ),
                404 => format!("no login method is mounted at {path}; check VAULT_AUTH_MOUNT"),
                _ => format!("it answered {} to the login at {path}", answer.status),
            }));
        }
        serde_json::from_str::<Login>(answer.body.reveal())
            .ok()
            .map(|login| login.auth)
            .filter(|auth| !auth.client_token.is_empty())
            .ok_or_else(|| self.refused(format!("its answer to {path} has no auth.client_token")))
    }

    async fn read_secret(&self, file: &std::path::Path) -> Result<Secret, CredentialError> {
        let path = file.display();
        let text = (tokio::fs::read_to_string(file).await)
            .map_err(|error| self.refused(format!("{path} cannot be read: {error}")))?;
        match text.trim() {
            "" => Err(self.refused(format!("{path} is empty"))),
            text => Ok(Secret::new(text)),
        }
    }

    /// Whose the refused token is, as far as Vault tells.
    async fn explain_refusal(&self, status: StatusCode, token: &Secret) -> CredentialError {
        let source = self.describe_login();
        let path = self.settings.endpoint.path();
        let path = path.find("/v1/").map_or(path, |start| &path[start + 4..]);
        let lookup = self.api("auth/token/lookup-self");
        let answer = self.send(Method::GET, lookup, Some(token), None).await;
        self.refused(match answer {
            Ok(answer) if answer.status.is_success() => {
                let known = serde_json::from_str::<LookedUp>(answer.body.reveal()).ok();
                let data = known.map(|known| known.data).unwrap_or_default();
                format!(
                    "it answered {status}: {} ({source}) lacks the capability `read` on the path {path}; its policies are {}",
                    short(&data.display_name),
                    short(&data.policies.join(", ")),
                )
            }
            Ok(answer) if answer.status == StatusCode::FORBIDDEN => format!(
                "it answered {status}: {source} is wrong, has run out or was revoked; log in again"
            ),
            _ => format!(
                "it answered {status}: {source} is wrong, has run out, or has no policy for the path {path}"
            ),
        })
    }

    fn describe_login(&self) -> String {
        match &self.settings.login {
            VaultLogin::Token { origin, .. } => format!("the Vault token of {origin}"),
            VaultLogin::TokenFile(file) => format!("the Vault token in {}", file.display()),
            VaultLogin::AppRole { mount, role_id, .. } => {
                format!("the AppRole {role_id} at auth/{mount}")
            }
            VaultLogin::Jwt { mount, role, .. } => format!(
                "the web token's {} at auth/{mount}",
                role.as_deref().unwrap_or("default role")
            ),
        }
    }

    fn minted(&self, answer: &Answer) -> Result<Minted, CredentialError> {
        let unexpected = "its answer has no data.token; check vault_endpoint";
        let TokenAnswer { data } =
            serde_json::from_str(answer.body.reveal()).map_err(|_| self.refused(unexpected))?;
        let token = data.token.filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| self.refused(unexpected))?;
        let seconds = data.token_ttl.or_else(|| {
            let end = data.expires_at_seconds?;
            Some(end.saturating_sub(Timestamp::now().as_second()))
        });
        Ok(Minted {
            token: Secret::new(token),
            life: seconds.map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs())),
        })
    }
}

#[async_trait]
impl Mint for Vault {
    fn describe(&self) -> String {
        // Without user name, password and query, which may be secrets.
        let endpoint = &self.settings.endpoint;
        let host = endpoint.host_str().unwrap_or_default();
        let port = (endpoint.port()).map_or_else(String::new, |port| format!(":{port}"));
        let scheme = endpoint.scheme();
        format!("Vault at {scheme}://{host}{port}{}", endpoint.path())
    }

    async fn mint(&self) -> Result<Minted, CredentialError> {
        loop {
            let (token, renewable) = self.session().await?;
            let endpoint = self.settings.endpoint.clone();
            let answer = self.send(Method::GET, endpoint, Some(&token), None).await?;
            match answer.status.as_u16() {
                200..=299 => return self.minted(&answer),
                // A login of ours may have been revoked meanwhile.
                401 | 403 if renewable => *self.session.lock().await = None,
                401 | 403 => return Err(self.explain_refusal(answer.status, &token).await),
                404 => {
                    return Err(self.refused(format!(
                        "it answered {}: nothing is at this path; check vault_endpoint",
                        answer.status
                    )));
                }
                _ => return Err(self.refused(format!("it answered {}", answer.status))),
            }
        }
    }
}
