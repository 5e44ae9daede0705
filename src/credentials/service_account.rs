//! Access tokens for a service account's key (RFC 7523, "JWT bearer").
//!
//! Google's library signs tokens of its own instead, which its APIs take but
//! the registries' logins, made for access tokens, may not: one token has to
//! do for both.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use google_cloud_auth::credentials::service_account;
use google_cloud_auth::signer::Signer;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::cached::{Mint, Minted};
use super::{CredentialError, Secret};
use crate::http::{HttpClient, read_body};

/// How long a token is asked for, and the most that Google grants.
const LIFE: Duration = Duration::from_secs(3_600);
const MAX_ANSWER: usize = 1 << 20;

/// A service account whose private key we have.
pub(super) struct ServiceAccountKey {
    description: String,
    email: String,
    key_id: String,
    token_server: Url,
    signer: Signer,
    scope: &'static str,
    http: HttpClient,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    /// Seconds.
    expires_in: Option<u64>,
}

/// What is wrong with a key file, in words that show nothing of it.
pub(super) type Problem = &'static str;

impl ServiceAccountKey {
    /// Takes a key file's JSON apart; `origin` says where it lies.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(super) fn new(
        json: Value,
        origin: &str,
        scope: &'static str,
        http: &HttpClient,
    ) -> Result<Self, Problem> {
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
        let email = text("client_email").ok_or("client_email is missing")?;
        let key_id = text("private_key_id").ok_or("private_key_id is missing")?;
        let token_server = text("token_uri")
            .unwrap_or_else(|| "https://oauth2.googleapis.com/token".to_owned())
            .parse()
            .map_err(|_| "token_uri is no address")?;
        let signer = service_account::Builder::new(json)
            .build_signer()
            .map_err(|_| "private_key or project_id is missing")?;
        Ok(Self {
            description: format!("the service account {email} ({origin})"),
            email,
            key_id,
            token_server,
            signer,
            scope,
            http: http.clone(),
        })
    }

    fn refused(&self, problem: impl Into<String>) -> CredentialError {
        CredentialError::Refused {
            source_name: self.describe(),
            problem: problem.into(),
        }
    }

    /// The signed statement that is exchanged for a token.
    async fn assertion(&self) -> Result<String, CredentialError> {
        let now = Timestamp::now().as_second();
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.key_id});
        let claims = json!({
            "iss": self.email,
            "scope": self.scope,
            "aud": self.token_server.as_str(),
            "iat": now,
            "exp": now.saturating_add_unsigned(LIFE.as_secs()),
        });
        let [header, claims] =
            [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let statement = format!("{header}.{claims}");
        // The signer's message could quote the key.
        let signature = (self.signer.sign(statement.as_bytes()))
            .await
            .map_err(|_| self.refused("private_key is not a usable RSA key in PEM form"))?;
        Ok(format!("{statement}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[async_trait]
impl Mint for ServiceAccountKey {
    fn describe(&self) -> String {
        self.description.clone()
    }

    async fn mint(&self) -> Result<Minted, CredentialError> {
        let assertion = self.assertion().await?;
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", &assertion)
            .finish();
        let request = (self.http)
            .request(http::Method::POST, self.token_server.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let response = (self.http.send(request))
            .await
            .map_err(|error| self.refused(format!("the token server: {error}")))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(format!(
                "the token server answered {status}; is the key still valid, and the clock right?"
            )));
        }
        let body = read_body(response, MAX_ANSWER)
            .await
            .map_err(|error| self.refused(format!("the token server: {error}")))?;
        let answer: Answer = body
            .and_then(|body| serde_json::from_slice(&body).ok())
            .ok_or_else(|| self.refused("the token server's answer has no access_token"))?;
        Ok(Minted {
            token: Secret::new(answer.access_token),
            life: answer.expires_in.map(Duration::from_secs),
        })
    }
}
