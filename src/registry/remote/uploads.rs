//! Blobs brought into the repository: mounted, or sent with one POST and one
//! PUT (some registries take nothing else).

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

use super::RemoteRegistry;
use super::answer::Problem;
use super::auth::Ticket;
use super::body::{Sending, upload_body};
use crate::http::{SendError, is_transient_status, retry_after};
use crate::oci::{BlobSource, Descriptor, Repository};
use crate::registry::{BlobOutcome, RegistryError};

/// How many stall timeouts a registry may take to digest
/// a blob whose last byte was sent.
const PATIENCE_AFTER_LAST_BYTE: u32 = 5;

/// How one attempt to send a blob ended, if another may help.
enum Attempt {
    Done,
    /// 401: the authorization ran out on the way.
    Unauthorized(Ticket, HeaderMap),
    Failed(RegistryError, Option<Duration>),
}

impl RemoteRegistry {
    pub(super) async fn mount_or_upload(
        &self,
        blob: &Arc<dyn BlobSource>,
        candidates: &[Repository],
    ) -> Result<BlobOutcome, RegistryError> {
        let mut session: Option<Url> = None;
        let names = candidates.iter().filter_map(|candidate| match candidate {
            Repository::Registry { host, name } if *host == self.host => Some(name),
            _ => None,
        });
        for source in names {
            if let Some(unused) = session.take() {
                self.cancel(unused).await;
            }
            match self.mount(blob.descriptor(), source).await? {
                Mount::Done if *source == self.name => return Ok(BlobOutcome::Present),
                Mount::Done => return Ok(BlobOutcome::Mounted),
                Mount::Refused(opened) => session = opened,
            }
        }
        self.upload(blob, session).await?;
        Ok(BlobOutcome::Uploaded)
    }

    /// A refusal is no error, since the blob can be sent; registries refuse in many ways.
    async fn mount(&self, descriptor: &Descriptor, source: &str) -> Result<Mount, RegistryError> {
        let mut url = self.url("blobs/uploads/");
        url.query_pairs_mut()
            .append_pair("mount", &descriptor.digest.to_string())
            .append_pair("from", source);
        let mut call = self.call(Method::POST, url);
        if source != self.name {
            call.scopes.push(format!("repository:{source}:pull"));
        }
        let response = match self.transport.send(&call).await {
            // The token server does not let us read the source.
            Err(RegistryError::Denied { .. }) => return Ok(Mount::Refused(None)),
            response => response?,
        };
        match response.status() {
            StatusCode::CREATED => Ok(Mount::Done),
            StatusCode::ACCEPTED => Ok(Mount::Refused(
                self.transport.location(&response, &call.url).ok(),
            )),
            status if is_transient_status(status) => Err((self.transport)
                .problem(&call.method, &call.url, response)
                .await),
            _ => Ok(Mount::Refused(None)),
        }
    }

    /// Every attempt starts a new session: what a broken one has taken is unknown.
    async fn upload(
        &self,
        blob: &Arc<dyn BlobSource>,
        mut session: Option<Url>,
    ) -> Result<(), RegistryError> {
        let (mut failures, mut refusals) = (0, 0);
        loop {
            let url = match session.take() {
                Some(url) => url,
                None => self.begin().await?,
            };
            match self.send(blob, &url).await? {
                Attempt::Done => return Ok(()),
                Attempt::Unauthorized(ticket, headers) => {
                    refusals += 1;
                    let renewed = (self.transport.authenticator)
                        .renew(&self.scopes(), &ticket, &headers, refusals)
                        .await?;
                    if !renewed {
                        let (status, problem) = (StatusCode::UNAUTHORIZED, Problem::default());
                        return Err((self.transport)
                            .error(&Method::PUT, &url, status, problem)
                            .await);
                    }
                }
                Attempt::Failed(error, wish) => {
                    failures += 1;
                    let http = &self.transport.http;
                    if failures >= http.retry().attempts {
                        return Err(error);
                    }
                    http.pause(failures, wish).await;
                    // The registry may have taken it, and only the answer was lost.
                    if matches!(self.head_blob(&blob.descriptor().digest).await, Ok(true)) {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn begin(&self) -> Result<Url, RegistryError> {
        let call = self.call(Method::POST, self.url("blobs/uploads/"));
        let response = self.transport.send(&call).await?;
        match response.status() {
            StatusCode::ACCEPTED => self.transport.location(&response, &call.url),
            _ => Err((self.transport)
                .problem(&call.method, &call.url, response)
                .await),
        }
    }

    async fn send(
        &self,
        blob: &Arc<dyn BlobSource>,
        session: &Url,
    ) -> Result<Attempt, RegistryError> {
        let descriptor = blob.descriptor();
        let mut url = session.clone();
        url.query_pairs_mut()
            .append_pair("digest", &descriptor.digest.to_string());
        let mut headers = HeaderMap::new();
        let mut ticket = Ticket::default();
        if self.transport.target.owns(&url) {
            ticket = self.transport.authenticator.ticket(&self.scopes()).await?;
            ticket.apply(&mut headers);
        }
        let (body, sending) = upload_body(Arc::clone(blob));
        let request = (self.transport)
            .streaming(Method::PUT, url.clone())?
            .headers(headers)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, descriptor.size)
            .body(body);
        let answer = watched(
            request,
            &sending,
            descriptor.size,
            self.transport.http.stall_timeout(),
        )
        .await;
        if let Some(error) = sending.source_failure() {
            self.cancel(session.clone()).await;
            return Err(source_error(descriptor, error));
        }
        let target = &self.transport.target;
        let response = match answer {
            Ok(response) => response,
            Err(error) if error.is_transient() => {
                return Ok(Attempt::Failed(target.unreachable(error), None));
            }
            Err(error) => return Err(target.unreachable(error)),
        };
        let status = response.status();
        if status.is_success() && status != StatusCode::ACCEPTED {
            return self.judge_digest(descriptor, response.headers());
        }
        if status == StatusCode::UNAUTHORIZED {
            return Ok(Attempt::Unauthorized(ticket, response.headers().clone()));
        }
        let wish = retry_after(response.headers());
        let problem = Problem::of(response).await;
        // The session is gone, or the bytes were damaged on the way: they were right here.
        let lost = matches!(status.as_u16(), 404 | 416)
            || problem.has("DIGEST_INVALID")
            || problem.has("SIZE_INVALID")
            || problem.has("BLOB_UPLOAD_UNKNOWN")
            || problem.has("BLOB_UPLOAD_INVALID");
        let error = (self.transport)
            .error(&Method::PUT, &url, status, problem)
            .await;
        if lost || is_transient_status(status) {
            Ok(Attempt::Failed(error, wish))
        } else {
            Err(error)
        }
    }

    fn judge_digest(
        &self,
        descriptor: &Descriptor,
        headers: &HeaderMap,
    ) -> Result<Attempt, RegistryError> {
        let stated = (headers.get("docker-content-digest")).and_then(|value| value.to_str().ok());
        match stated {
            Some(stated) if stated != descriptor.digest.to_string() => {
                Err(RegistryError::Damaged {
                    what: format!("a blob sent to {}", self.transport.target.repository),
                    expected: descriptor.digest.to_string(),
                    actual: stated.to_owned(),
                })
            }
            _ => Ok(Attempt::Done),
        }
    }

    /// Closes a session that is not needed. If that fails, the registry's own cleaning does it.
    async fn cancel(&self, session: Url) {
        let mut headers = HeaderMap::new();
        if self.transport.target.owns(&session)
            && let Ok(ticket) = self.transport.authenticator.ticket(&self.scopes()).await
        {
            ticket.apply(&mut headers);
        }
        if let Ok(request) = self.transport.streaming(Method::DELETE, session) {
            let sending = request.headers(headers).send();
            let _ = tokio::time::timeout(self.transport.http.stall_timeout(), sending).await;
        }
    }
}

enum Mount {
    Done,
    /// With the upload session that the registry opened instead, if it did.
    Refused(Option<Url>),
}

/// The answer, unless the connection takes nothing for `limit`.
async fn watched(
    request: reqwest::RequestBuilder,
    sending: &Sending,
    size: u64,
    limit: Duration,
) -> Result<reqwest::Response, SendError> {
    let answer = request.send();
    tokio::pin!(answer);
    let (mut seen, mut idle) = (0, 0);
    loop {
        tokio::select! {
            answer = &mut answer => return Ok(answer?),
            () = tokio::time::sleep(limit) => {
                let taken = sending.taken();
                idle = if taken > seen { 0 } else { idle + 1 };
                seen = taken;
                let patience = if taken < size { 1 } else { PATIENCE_AFTER_LAST_BYTE };
                if idle >= patience {
                    return Err(SendError::Stalled(limit));
                }
            }
        }
    }
}

/// The error that the blob's source reported, which may be a wrong digest.
fn source_error(descriptor: &Descriptor, error: &std::io::Error) -> RegistryError {
    let damage = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<crate::registry::verified::Damage>());
    match damage {
        Some(damage) => damage.clone().into(),
        None => RegistryError::Io {
            action: format!("cannot read the blob {}", descriptor.digest),
            source: std::io::Error::new(error.kind(), error.to_string()),
        },
    }
}
