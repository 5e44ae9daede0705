//! Credentials whose tokens Google's own library makes: a user's login, workload
//! identity federation, impersonation, the metadata server. What it says of a
//! failure quotes servers and programs, so the reason is told in our own words.

use std::time::Duration;

use google_cloud_auth::credentials::{
    AccessTokenCredentials, external_account, impersonated, mds, user_account,
};
use google_cloud_auth::errors::CredentialsError;
use http::StatusCode;
use serde_json::Value;

use super::{CredentialError, Secret};

/// A token server that says nothing for so long is given up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// One identity.
pub(super) struct LibraryCredential {
    credentials: AccessTokenCredentials,
    description: String,
    /// Whose token is made out of ours, if anybody's: a service account.
    impersonated: Option<String>,
    /// Where the token comes from that a federation exchanges.
    subject: Option<Subject>,
}

/// `credential_source` of an external account (published in "AIP-4117").
struct Subject {
    /// In words.
    place: String,
    url: Option<String>,
    /// A program runs only where the user has allowed it.
    is_program: bool,
    audience: String,
}

impl LibraryCredential {
    /// What a credential file of this `type` describes; `None` if the type is none of these.
    ///
    /// # Errors
    /// [`CredentialError::Misconfigured`], without a word of the file.
    pub(super) fn from_file(
        kind: &str,
        json: Value,
        origin: &str,
        scope: &str,
    ) -> Result<Option<Self>, CredentialError> {
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
        let impersonated = text("service_account_impersonation_url")
            .and_then(|url| Some(account_of(&url)?.to_owned()));
        let subject = (kind == "external_account").then(|| Subject::of(&json));
        let principal = match (&impersonated, &subject) {
            (Some(account), Some(subject)) => {
                format!(
                    "{account}, impersonated by the workload {}",
                    subject.audience
                )
            }
            (Some(account), None) => format!("{account}, impersonated"),
            (None, Some(subject)) => format!("the workload {}", subject.audience),
            (None, None) => match text("account").filter(|account| !account.is_empty()) {
                Some(account) => account,
                None => "the user's login".to_owned(),
            },
        };
        let built = match kind {
            "authorized_user" => user_account::Builder::new(json)
                .with_scopes([scope])
                .build_access_token_credentials(),
            "external_account" => external_account::Builder::new(json)
                .with_scopes([scope])
                .build_access_token_credentials(),
            "impersonated_service_account" => impersonated::Builder::new(json)
                .with_scopes([scope])
                .build_access_token_credentials(),
            _ => return Ok(None),
        };
        let credentials = built.map_err(|error| {
            let problem = if error.is_missing_field() {
                "a member is missing"
            } else {
                "it is not valid"
            };
            CredentialError::Misconfigured {
                source_name: origin.to_owned(),
                problem: format!("as a credential of the type {kind}, {problem}"),
            }
        })?;
        Ok(Some(Self {
            credentials,
            description: format!("{principal} ({origin})"),
            impersonated,
            subject,
        }))
    }

    /// The service account of the machine that this runs on.
    ///
    /// # Errors
    /// [`CredentialError::Misconfigured`].
    pub(super) fn of_machine(scope: &str) -> Result<Self, CredentialError> {
        let credentials = (mds::Builder::default().with_scopes([scope]))
            .build_access_token_credentials()
            .map_err(|_| CredentialError::Misconfigured {
                source_name: "the metadata server".to_owned(),
                problem: "it cannot be used".to_owned(),
            })?;
        Ok(Self {
            credentials,
            description: "the service account of this machine (metadata server)".to_owned(),
            impersonated: None,
            subject: None,
        })
    }

    pub(super) fn describe(&self) -> &str {
        &self.description
    }

    /// A token; the library keeps it and renews it before its end.
    pub(super) async fn token(&self) -> Result<Secret, CredentialError> {
        let refused = |problem: String| CredentialError::Refused {
            source_name: self.description.clone(),
            problem,
        };
        let token = tokio::time::timeout(TIMEOUT, self.credentials.access_token())
            .await
            .map_err(|_| refused("the token server does not answer".to_owned()))?
            .map_err(|error| refused(self.explain(&error)))?;
        Ok(Secret::new(token.token))
    }

    fn explain(&self, error: &CredentialsError) -> String {
        if error.to_string().contains("invalid_grant") && self.subject.is_none() {
            return "the login has run out or was revoked; log in again".to_owned();
        }
        match Failure::of(error) {
            Failure::Impersonation(StatusCode::FORBIDDEN) => {
                let account = self
                    .impersonated
                    .as_deref()
                    .unwrap_or("the service account");
                let role = match self.subject {
                    Some(_) => "roles/iam.workloadIdentityUser",
                    None => "roles/iam.serviceAccountTokenCreator",
                };
                format!(
                    "the permission iam.serviceAccounts.getAccessToken on {account} is missing; grant {role} there"
                )
            }
            Failure::Impersonation(status) => {
                format!("the impersonation was answered {status}")
            }
            Failure::TokenServer { status, url } => match &self.subject {
                Some(subject) if url.is_some() && subject.url == url => {
                    format!(
                        "{} answered {status} and gave no subject token",
                        subject.place
                    )
                }
                Some(subject) if status.is_client_error() => format!(
                    "the token service answered {status} and refused the subject token from {}; check issuer, audience and conditions of {}",
                    subject.place, subject.audience
                ),
                _ => format!("the token server answered {status}"),
            },
            Failure::Unreachable => "the token server cannot be reached".to_owned(),
            Failure::Other => match &self.subject {
                Some(subject) if subject.is_program => format!(
                    "{} gave no subject token; it must be allowed with GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1, end well, and print the published JSON",
                    subject.place
                ),
                Some(subject) => format!("no subject token could be read from {}", subject.place),
                None => "the credential was refused".to_owned(),
            },
        }
    }
}

/// How far the library came.
enum Failure {
    Impersonation(StatusCode),
    TokenServer {
        status: StatusCode,
        url: Option<String>,
    },
    Unreachable,
    Other,
}

impl Failure {
    fn of(error: &CredentialsError) -> Self {
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(current) = cause {
            if let Some(answer) = current.downcast_ref::<google_cloud_gax::error::Error>()
                && let Some(status) = answer.http_status_code()
                && let Ok(status) = StatusCode::from_u16(status)
            {
                return Self::Impersonation(status);
            }
            if let Some(transport) = current.downcast_ref::<reqwest::Error>() {
                return match transport.status() {
                    Some(status) => Self::TokenServer {
                        status,
                        url: transport.url().map(|url| url.as_str().to_owned()),
                    },
                    None if transport.is_decode() => Self::Other,
                    None => Self::Unreachable,
                };
            }
            cause = current.source();
        }
        Self::Other
    }
}

impl Subject {
    fn of(json: &Value) -> Self {
        let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str);
        let url = text("/credential_source/url");
        let program = text("/credential_source/executable/command");
        let place = match (text("/credential_source/file"), url, program) {
            (Some(file), ..) => format!("the file {file}"),
            // Without its query, which may hold a secret.
            (_, Some(url), _) => url.split('?').next().unwrap_or(url).to_owned(),
            // Without its arguments.
            (.., Some(command)) => {
                let program = command.split_whitespace().next().unwrap_or(command);
                format!("the program {program}")
            }
            _ => "its source".to_owned(),
        };
        let audience = text("/audience").unwrap_or_default();
        let audience = audience.strip_prefix("//iam.googleapis.com/");
        Self {
            place,
            url: url.and_then(|url| Some(url::Url::parse(url).ok()?.as_str().to_owned())),
            is_program: program.is_some(),
            audience: audience.unwrap_or("identity federation").to_owned(),
        }
    }
}

/// `EMAIL` in `…/serviceAccounts/EMAIL:generateAccessToken`.
fn account_of(url: &str) -> Option<&str> {
    let (_, rest) = url.rsplit_once("/serviceAccounts/")?;
    rest.split(':').next().filter(|email| !email.is_empty())
}
