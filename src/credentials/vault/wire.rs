//! What goes to and comes from Vault's HTTP interface; only the members that matter.

use serde::{Deserialize, Serialize};

/// `POST auth/MOUNT/login` of the AppRole method.
#[derive(Serialize)]
pub(super) struct AppRoleLogin<'a> {
    pub(super) role_id: &'a str,
    pub(super) secret_id: &'a str,
}

/// `POST auth/MOUNT/login` of the JWT method.
#[derive(Serialize)]
pub(super) struct JwtLogin<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'a str>,
    pub(super) jwt: &'a str,
}

/// The answer to a login.
#[derive(Deserialize)]
pub(super) struct Login {
    pub(super) auth: Auth,
}

#[derive(Deserialize)]
pub(super) struct Auth {
    pub(super) client_token: String,
    /// Seconds.
    #[serde(default)]
    pub(super) lease_duration: u64,
}

/// The answer of Google's secrets engine. Newer servers say how long the token lives.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    pub(super) data: TokenData,
}

#[derive(Deserialize)]
pub(super) struct TokenData {
    pub(super) token: Option<String>,
    /// Seconds.
    pub(super) token_ttl: Option<i64>,
    /// Seconds since 1970.
    pub(super) expires_at_seconds: Option<i64>,
}

/// The answer of `GET auth/token/lookup-self`.
#[derive(Deserialize)]
pub(super) struct LookedUp {
    pub(super) data: Principal,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Principal {
    pub(super) display_name: String,
    pub(super) policies: Vec<String>,
}

/// A name that a server gave, fit for one line of an error message.
pub(super) fn short(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
    match text.is_empty() {
        true => "unknown".to_owned(),
        false => text,
    }
}
