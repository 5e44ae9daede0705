//! Access tokens from the Google secrets engine of a Vault server, asked for
//! exactly as BigFlow does: GET of the full address with `X-Vault-Token`, and
//! the token at `data.token`.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use super::cached::{Mint, Minted};
use super::{CredentialError, Secret};
use crate::http::{HttpClient, HttpOptions, TlsVerification, read_body};

const MAX_ANSWER: usize = 1 << 20;

/// One path of one Vault server.
pub(super) struct Vault {
    endpoint: Url,
    secret: Secret,
    http: HttpClient,
}

/// The members that matter. Newer servers say how long the token lives.
#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    token: Option<String>,
    /// Seconds.
    token_ttl: Option<i64>,
    /// Seconds since 1970.
    expires_at_seconds: Option<i64>,
}

impl Vault {
    pub(super) fn new(
        endpoint: &str,
        secret: Secret,
        verify: &TlsVerification,
        http: &HttpClient,
    ) -> Result<Self, CredentialError> {
        let misconfigured = |problem: String| CredentialError::Misconfigured {
            source_name: "Vault".to_owned(),
            problem,
        };
        let endpoint = Url::parse(endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                misconfigured(format!(
                    "the endpoint {endpoint:?} must be a full address such as https://vault.example.com/v1/gcp/roleset/NAME/token"
                ))
            })?;
        if secret.reveal().trim().is_empty() {
            return Err(misconfigured(
                "the secret is empty; give it with --vault-secret".to_owned(),
            ));
        }
        let http = if *verify == http.options().verification {
            http.clone()
        } else {
            let options = HttpOptions {
                verification: verify.clone(),
                ..http.options().clone()
            };
            HttpClient::new(&options)
                .map_err(|error| misconfigured(format!("vault_endpoint_verify: {error}")))?
        };
        Ok(Self {
            endpoint,
            secret,
            http,
        })
    }

    fn refused(&self, problem: impl Into<String>) -> CredentialError {
        CredentialError::Refused {
            source_name: self.describe(),
            problem: problem.into(),
        }
    }

    async fn ask(&self) -> Result<reqwest::Response, CredentialError> {
        let mut header = http::HeaderValue::from_str(self.secret.reveal().trim())
            .map_err(|_| self.refused("the secret has characters that no header can carry"))?;
        header.set_sensitive(true);
        let request = (self.http)
            .request(http::Method::GET, self.endpoint.clone())
            .header("x-vault-token", header);
        (self.http.send(request))
            .await
            .map_err(|error| self.refused(error.to_string()))
    }
}

#[async_trait]
impl Mint for Vault {
    fn describe(&self) -> String {
        // Without user name, password and query, which may be secrets.
        let host = self.endpoint.host_str().unwrap_or_default();
        let port = (self.endpoint.port()).map_or_else(String::new, |port| format!(":{port}"));
        let scheme = self.endpoint.scheme();
        format!("Vault at {scheme}://{host}{port}{}", self.endpoint.path())
    }

    async fn mint(&self) -> Result<Minted, CredentialError> {
        let response = self.ask().await?;
        let status = response.status();
        if !status.is_success() {
            // The body may hold secrets, so it is not looked at.
            return Err(self.refused(match status.as_u16() {
                401 | 403 => {
                    format!("it answered {status}: the Vault secret is wrong, has run out, or has no policy for this path")
                }
                404 => format!("it answered {status}: nothing is at this path; check vault_endpoint"),
                _ => format!("it answered {status}"),
            }));
        }
        let unexpected = "its answer has no data.token; check vault_endpoint";
        let body = read_body(response, MAX_ANSWER)
            .await
            .map_err(|error| self.refused(error.to_string()))?
            .ok_or_else(|| self.refused("its answer is too long"))?;
        let Answer { data } =
            serde_json::from_slice(&body).map_err(|_| self.refused(unexpected))?;
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
