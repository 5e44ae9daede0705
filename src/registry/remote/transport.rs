//! One request, until it has an answer that means something: with
//! authorization, repeated while a repetition may help, redirects followed.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, LOCATION};
use http::{Method, StatusCode};
use url::Url;

use super::answer::Problem;
use super::auth::{Authenticator, Scopes};
use crate::credentials::{RegistryCredentials, is_google};
use crate::http::{HttpClient, SendError, read_body};
use crate::registry::{Access, RegistryError};

const MAX_REDIRECTS: usize = 5;
/// The most that is read of an answer that nobody looks at.
const MAX_DRAINED: usize = 64 << 10;

/// The registry and repository that requests go to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Host, with its port, as the repository names it.
    pub(super) host: String,
    /// `HOST/NAME`, for error messages.
    pub(super) repository: String,
    /// The registry's address.
    pub(super) base: Url,
    pub(super) access: Access,
}

impl Target {
    pub(super) fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }

    /// Whether requests to `url` may carry this registry's credentials.
    pub(super) fn owns(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// What this repository was opened for.
    pub(super) fn action(&self) -> &'static str {
        self.action_of(self.access)
    }

    /// What was refused, with Google's name of the permission on its registries.
    fn action_of(&self, access: Access) -> &'static str {
        match (access, is_google(&self.host)) {
            (Access::Pull, false) => "pull",
            (Access::Push, false) => "push",
            (Access::Pull, true) => {
                "pull (permission artifactregistry.repositories.downloadArtifacts)"
            }
            (Access::Push, true) => {
                "push (permission artifactregistry.repositories.uploadArtifacts)"
            }
        }
    }

    pub(super) fn unreachable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> RegistryError {
        RegistryError::Unreachable {
            registry: self.host.clone(),
            source: source.into(),
        }
    }
}

/// A request that can be sent again: its body, if any, is small.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) scopes: Scopes,
}

/// The connection to one repository.
pub(super) struct Transport {
    pub(super) target: Target,
    pub(super) http: HttpClient,
    pub(super) authenticator: Authenticator,
}

impl Transport {
    pub(super) fn new(
        target: Target,
        http: &HttpClient,
        credentials: Arc<RegistryCredentials>,
    ) -> Self {
        Self {
            authenticator: Authenticator::new(target.clone(), http.clone(), credentials),
            target,
            http: http.clone(),
        }
    }

    /// Sends a request until it has an answer. Refusals and statuses that stay
    /// transient are answers: see [`Self::problem`].
    pub(super) async fn send(&self, call: &Call) -> Result<reqwest::Response, RegistryError> {
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_to(&url, call).await?;
            match self.redirect(&response, &url)? {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(RegistryError::Malformed {
            what: format!("the answer of {} to {}", self.target.host, path_of(call)),
            problem: "it redirects again and again".to_owned(),
        })
    }

    async fn send_to(&self, url: &Url, call: &Call) -> Result<reqwest::Response, RegistryError> {
        let own = self.target.owns(url);
        let mut refusals = 0;
        loop {
            let mut headers = call.headers.clone();
            let ticket = match own {
                true => self.authenticator.ticket(&call.scopes).await?,
                false => Default::default(),
            };
            ticket.apply(&mut headers);
            let request = if is_upload(&call.method) {
                // On the pool that the blob's bytes will use.
                self.streaming(call.method.clone(), url.clone())?
            } else {
                self.http.request(call.method.clone(), url.clone())
            };
            let request = request.headers(headers).body(call.body.clone());
            let request = match is_upload(&call.method) && call.body.is_empty() {
                // Left out otherwise, and some servers answer 411 to that.
                true => request.header(CONTENT_LENGTH, 0),
                false => request,
            };
            let response = (self.http.send(request))
                .await
                .map_err(|source| self.target.unreachable(source))?;
            if !own || response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            refusals += 1;
            let renewed = self
                .authenticator
                .renew(&call.scopes, &ticket, response.headers(), refusals)
                .await?;
            if !renewed {
                return Ok(response);
            }
            // A body that is left unread costs the connection.
            let _ = read_body(response, MAX_DRAINED).await;
        }
    }

    /// A request without a limit of time.
    pub(super) fn streaming(
        &self,
        method: Method,
        url: Url,
    ) -> Result<reqwest::RequestBuilder, RegistryError> {
        self.http
            .streaming_request(method, url)
            .map_err(|source| self.target.unreachable(source))
    }

    /// Where an answer sends us on to.
    fn redirect(
        &self,
        response: &reqwest::Response,
        from: &Url,
    ) -> Result<Option<Url>, RegistryError> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        self.location(response, from).map(Some)
    }

    /// The `Location` of an answer to a request to `from`; it may be relative.
    pub(super) fn location(
        &self,
        response: &reqwest::Response,
        from: &Url,
    ) -> Result<Url, RegistryError> {
        let malformed = |problem: &str| RegistryError::Malformed {
            what: format!("the Location that {} sent", self.target.host),
            problem: problem.to_owned(),
        };
        let text = (response.headers().get(LOCATION))
            .ok_or_else(|| malformed("it is missing"))?
            .to_str()
            .map_err(|_| malformed("it is not text"))?;
        let mut url = from.join(text).map_err(|_| malformed("it is no address"))?;
        // A registry behind a proxy that ends TLS may not know that it is spoken to over HTTPS.
        let base = &self.target.base;
        if url.scheme() == "http" && base.scheme() == "https" && url.host() == base.host() {
            let _ = url.set_port(base.port());
            let _ = url.set_scheme("https");
        }
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.target.is_plain() => Ok(url),
            _ => Err(malformed("it leaves HTTPS")),
        }
    }

    /// Waits before the next attempt, or gives up with `error`.
    pub(super) async fn pause_or_fail(
        &self,
        failures: u32,
        error: SendError,
    ) -> Result<(), RegistryError> {
        if failures >= self.http.retry().attempts {
            return Err(self.target.unreachable(error));
        }
        self.http.pause(failures, None).await;
        Ok(())
    }

    /// The error that an answer is.
    pub(super) async fn problem(
        &self,
        method: &Method,
        url: &Url,
        response: reqwest::Response,
    ) -> RegistryError {
        let status = response.status();
        let problem = Problem::of(response).await;
        self.error(method, url, status, problem).await
    }

    /// [`Self::problem`] for a body that was read already.
    pub(super) async fn error(
        &self,
        method: &Method,
        url: &Url,
        status: StatusCode,
        problem: Problem,
    ) -> RegistryError {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied {
                repository: self.target.repository.clone(),
                action: self.target.action_of(match is_upload(method) {
                    true => Access::Push,
                    false => Access::Pull,
                }),
                identity: self.authenticator.identity().await,
                detail: problem.detail,
            },
            StatusCode::NOT_FOUND if problem.has("NAME_UNKNOWN") => RegistryError::NoRepository {
                repository: self.target.repository.clone(),
            },
            _ => RegistryError::Unexpected {
                status: status.as_u16(),
                request: format!("{method} {}", url.path()),
                detail: problem.detail,
            },
        }
    }
}

fn is_upload(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

fn path_of(call: &Call) -> String {
    format!("{} {}", call.method, call.url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn googles_registries_have_names_for_what_is_refused() {
        for (host, access, expected) in [
            ("registry.test", Access::Push, "push"),
            ("registry.test", Access::Pull, "pull"),
            (
                "europe-docker.pkg.dev",
                Access::Push,
                "push (permission artifactregistry.repositories.uploadArtifacts)",
            ),
            (
                "eu.gcr.io",
                Access::Pull,
                "pull (permission artifactregistry.repositories.downloadArtifacts)",
            ),
        ] {
            let target = Target {
                host: host.to_owned(),
                repository: format!("{host}/project"),
                base: format!("https://{host}/").parse().unwrap(),
                access,
            };
            assert_eq!(target.action(), expected);
        }
    }
}
