//! The authorization of requests to one registry: taken from the first 401,
//! kept for every scope, renewed once for all requests that wait for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::answer::Problem;
use super::challenge::Challenge;
use super::transport::Target;
use crate::credentials::{Login, LoginKind, RegistryCredentials, Secret};
use crate::http::{HttpClient, read_body};
use crate::registry::RegistryError;

/// What a token is for: the repository's own scope, then those of mount
/// sources (some registries read only the first).
pub(super) type Scopes = Vec<String>;

/// A token's life where the token server names none (distribution specification).
const DEFAULT_TOKEN_LIFE: Duration = Duration::from_secs(60);
/// How long before its end a token is renewed, unless its life is short.
const RENEW_BEFORE_END: Duration = Duration::from_secs(60);
const MAX_TOKEN_ANSWER: usize = 1 << 20;

/// The authorization that a request was sent with.
#[derive(Debug, Clone, Default)]
pub(super) struct Ticket {
    header: Option<HeaderValue>,
    /// Which renewal it came from; 0 before the first.
    generation: u64,
}

impl Ticket {
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        if let Some(value) = &self.header {
            headers.insert(AUTHORIZATION, value.clone());
        }
    }
}

struct Granted {
    ticket: Ticket,
    renew_at: Option<Instant>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    granted: HashMap<Scopes, Granted>,
    renewals: u64,
}

/// Who we are to one registry.
pub(super) struct Authenticator {
    target: Target,
    http: HttpClient,
    credentials: Arc<RegistryCredentials>,
    state: Mutex<State>,
}

impl Authenticator {
    pub(super) fn new(
        target: Target,
        http: HttpClient,
        credentials: Arc<RegistryCredentials>,
    ) -> Self {
        Self {
            target,
            http,
            credentials,
            state: Mutex::default(),
        }
    }

    /// The authorization to send: none until the registry has asked for one.
    pub(super) async fn ticket(&self, scopes: &Scopes) -> Result<Ticket, RegistryError> {
        let mut state = self.state.lock().await;
        let Some(challenge) = state.challenge.clone() else {
            return Ok(Ticket::default());
        };
        if let Some(granted) = state.granted.get(scopes)
            && granted
                .renew_at
                .is_none_or(|moment| Instant::now() < moment)
        {
            return Ok(granted.ticket.clone());
        }
        self.grant(&mut state, &challenge, scopes).await
    }

    /// Answers a 401: `true` if there is now another authorization to try.
    /// `renewals` counts the calls for one request.
    pub(super) async fn renew(
        &self,
        scopes: &Scopes,
        refused: &Ticket,
        headers: &HeaderMap,
        renewals: u32,
    ) -> Result<bool, RegistryError> {
        let mut state = self.state.lock().await;
        let current = state.granted.get(scopes).map(|granted| &granted.ticket);
        if current.is_some_and(|ticket| ticket.generation != refused.generation) {
            // Another request has renewed it meanwhile.
            return Ok(renewals <= 2);
        }
        let Some(challenge) = Challenge::from_headers(headers).or(state.challenge.clone()) else {
            return Ok(false);
        };
        let was_fresh = renewals > 1;
        if was_fresh || (refused.header.is_some() && challenge == Challenge::Basic) {
            let renewable = self.credentials.forget(&self.target.host).await;
            if !renewable || renewals > 2 {
                return Ok(false);
            }
        }
        state.challenge = Some(challenge.clone());
        let ticket = self.grant(&mut state, &challenge, scopes).await?;
        Ok(ticket.header.is_some())
    }

    /// Who asks and with what, for error messages.
    pub(super) async fn identity(&self) -> String {
        match self.credentials.login(&self.target.host).await {
            Ok(login) => login.description,
            Err(error) => error.to_string(),
        }
    }

    async fn grant(
        &self,
        state: &mut State,
        challenge: &Challenge,
        scopes: &Scopes,
    ) -> Result<Ticket, RegistryError> {
        let login = self.credentials.login(&self.target.host).await?;
        let (header, renew_at) = match challenge {
            // Asked for again after a while: where the password is an access
            // token, only its source knows when it runs out.
            Challenge::Basic => (basic(&login)?, Instant::now().checked_add(RENEW_BEFORE_END)),
            Challenge::Bearer { realm, service } => {
                let endpoint = self.token_endpoint(realm)?;
                let token = match self.token(&endpoint, service, scopes, &login).await {
                    // The login itself may have run out, where it is a token.
                    Err(RegistryError::Denied { .. })
                        if self.credentials.forget(&self.target.host).await =>
                    {
                        let login = self.credentials.login(&self.target.host).await?;
                        self.token(&endpoint, service, scopes, &login).await?
                    }
                    token => token?,
                };
                let life = token.life();
                let margin = RENEW_BEFORE_END.min(life / 2);
                let header = sensitive(format!("Bearer {}", token.text.reveal()))?;
                (Some(header), Instant::now().checked_add(life - margin))
            }
        };
        state.renewals += 1;
        let ticket = Ticket {
            header,
            generation: state.renewals,
        };
        state.granted.insert(
            scopes.clone(),
            Granted {
                ticket: ticket.clone(),
                renew_at,
            },
        );
        Ok(ticket)
    }

    /// Credentials go over a plain line only where the registry itself is on one.
    fn token_endpoint(&self, realm: &str) -> Result<Url, RegistryError> {
        let malformed = |problem: String| RegistryError::Malformed {
            what: format!("the challenge of {}", self.target.host),
            problem,
        };
        let url = Url::parse(realm).map_err(|error| malformed(format!("{realm:?}: {error}")))?;
        let plain = url.scheme() == "http" && self.target.is_plain();
        if url.scheme() == "https" || plain {
            Ok(url)
        } else {
            Err(malformed(format!(
                "it sends us to {realm:?}, where credentials could be read on the way"
            )))
        }
    }

    async fn token(
        &self,
        endpoint: &Url,
        service: &Option<String>,
        scopes: &Scopes,
        login: &Login,
    ) -> Result<Token, RegistryError> {
        let request = {
            match &login.kind {
                LoginKind::IdentityToken(token) => {
                    let mut form = url::form_urlencoded::Serializer::new(String::new());
                    form.append_pair("grant_type", "refresh_token")
                        .append_pair("client_id", "forebay")
                        .append_pair("scope", &scopes.join(" "))
                        .append_pair("refresh_token", token.reveal());
                    if let Some(service) = service {
                        form.append_pair("service", service);
                    }
                    (self.http.request(Method::POST, endpoint.clone()))
                        .header("content-type", "application/x-www-form-urlencoded")
                        .body(form.finish())
                }
                kind => {
                    let mut url = endpoint.clone();
                    let mut query = url.query_pairs_mut();
                    if let Some(service) = service {
                        query.append_pair("service", service);
                    }
                    for scope in scopes {
                        query.append_pair("scope", scope);
                    }
                    drop(query);
                    let request = self.http.request(Method::GET, url);
                    match kind {
                        LoginKind::Password { user, password } => {
                            request.basic_auth(user, Some(password.reveal()))
                        }
                        _ => request,
                    }
                }
            }
        };
        let response = (self.http.send(request))
            .await
            .map_err(|source| self.target.unreachable(source))?;
        let status = response.status();
        let request = format!("the request for a token at {}", endpoint.path());
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(RegistryError::Denied {
                repository: self.target.repository.clone(),
                action: self.target.action(),
                identity: login.description.clone(),
                detail: Problem::of(response).await.detail,
            });
        }
        if !status.is_success() {
            return Err(RegistryError::Unexpected {
                status: status.as_u16(),
                request,
                detail: Problem::of(response).await.detail,
            });
        }
        let malformed = |problem: &str| RegistryError::Malformed {
            what: format!("the token from {}", endpoint.host_str().unwrap_or("?")),
            problem: problem.to_owned(),
        };
        let body = read_body(response, MAX_TOKEN_ANSWER)
            .await
            .map_err(|source| self.target.unreachable(source))?
            .ok_or_else(|| malformed("the answer is too long"))?;
        // The parser's message could quote the token.
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| malformed("the answer is not the expected JSON"))?;
        let text = (answer.token.filter(|token| !token.is_empty()))
            .or(answer.access_token)
            .ok_or_else(|| malformed("the answer has no token"))?;
        Ok(Token {
            text: Secret::new(text),
            expires_in: answer.expires_in,
        })
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

struct Token {
    text: Secret,
    expires_in: Option<u64>,
}

impl Token {
    fn life(&self) -> Duration {
        match self.expires_in {
            None | Some(0) => DEFAULT_TOKEN_LIFE,
            Some(seconds) => Duration::from_secs(seconds),
        }
    }
}

fn basic(login: &Login) -> Result<Option<HeaderValue>, RegistryError> {
    match &login.kind {
        LoginKind::Password { user, password } => {
            let pair = format!("{user}:{}", password.reveal());
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            sensitive(format!("Basic {encoded}")).map(Some)
        }
        // An identity token is of use to a token server alone.
        LoginKind::IdentityToken(_) | LoginKind::Anonymous => Ok(None),
    }
}

fn sensitive(text: String) -> Result<HeaderValue, RegistryError> {
    let mut value = HeaderValue::from_str(&text).map_err(|_| RegistryError::Malformed {
        what: "the credential for the registry".to_owned(),
        problem: "it has characters that no header can carry".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}
