//! A registry in this process that obeys the distribution specification to
//! the letter, takes nothing that it need not take, and fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forebay::oci::Sha256Digest;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) raw_query: String,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn is(&self, method: &str, path_prefix: &str) -> bool {
        self.method.as_str() == method && self.path.starts_with(path_prefix)
    }
}

/// What to answer instead of what the registry would.
pub(crate) enum Reply {
    Answer(Response<Full<Bytes>>),
    /// The connection ends without an answer.
    Break,
}

/// An answer with headers and a body.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name: hyper::header::HeaderName = name.parse().unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    Reply::Answer(response)
}

/// An answer with an error code of the specification.
pub(crate) fn error(status: u16, code: &str) -> Reply {
    let body = serde_json::json!({"errors": [{"code": code, "message": code.to_lowercase()}]});
    answer(
        status,
        &[("content-type", "application/json")],
        body.to_string(),
    )
}

type Rule = Box<dyn FnMut(&Received) -> Option<Reply> + Send>;

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Bytes>,
    manifests: BTreeMap<String, (String, Bytes)>,
    sessions: BTreeSet<String>,
    started: usize,
    received: Vec<Received>,
    rule: Option<Rule>,
}

/// The running registry; it has one repository, `project`.
pub(crate) struct StrictRegistry {
    address: String,
    state: Arc<Mutex<State>>,
    server: tokio::task::JoinHandle<()>,
}

impl StrictRegistry {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| None).await
    }

    /// Starts one that asks `rule` first.
    pub(crate) async fn start_with(
        rule: impl FnMut(&Received) -> Option<Reply> + Send + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State {
            rule: Some(Box::new(rule)),
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| serve(Arc::clone(&state), request));
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            state,
            server,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn repository(&self) -> String {
        format!("{}/project", self.address)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    /// How many requests have this method and begin of the path.
    pub(crate) fn count(&self, method: &str, path_prefix: &str) -> usize {
        let all = self.received();
        all.iter().filter(|r| r.is(method, path_prefix)).count()
    }

    pub(crate) fn blobs(&self) -> usize {
        self.state.lock().unwrap().blobs.len()
    }

    /// Upload sessions that nobody used or closed.
    pub(crate) fn open_sessions(&self) -> usize {
        self.state.lock().unwrap().sessions.len()
    }

    pub(crate) fn put_manifest(&self, name: &str, media_type: &str, bytes: Bytes) {
        let manifest = (media_type.to_owned(), bytes);
        let mut state = self.state.lock().unwrap();
        state.manifests.insert(name.to_owned(), manifest);
    }

    pub(crate) fn put_blob(&self, digest: &Sha256Digest, bytes: Bytes) {
        let mut state = self.state.lock().unwrap();
        state.blobs.insert(digest.to_string(), bytes);
    }
}

impl Drop for StrictRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Ends a connection: hyper gives up on a service that fails.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("broken on demand")
    }
}

impl std::error::Error for Broken {}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn serve(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Broken> {
    let (parts, body) = request.into_parts();
    // A body that breaks off was never sent.
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let raw_query = parts.uri.query().unwrap_or_default().to_owned();
    let query = url::form_urlencoded::parse(raw_query.as_bytes())
        .into_owned()
        .collect();
    let received = Received {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query,
        raw_query,
        headers: parts.headers,
        body,
    };
    let mut state = state.lock().unwrap();
    state.received.push(received.clone());
    let mut rule = state.rule.take();
    let ruled = rule.as_mut().and_then(|rule| rule(&received));
    state.rule = rule;
    match ruled.unwrap_or_else(|| state.obey(&received)) {
        Reply::Answer(response) => Ok(response),
        Reply::Break => Err(Broken),
    }
}

impl State {
    fn obey(&mut self, request: &Received) -> Reply {
        let path = request.path.clone();
        if let Some(session) = path.strip_prefix("/sessions/") {
            return self.session(request, session);
        }
        let Some(rest) = path.strip_prefix("/v2/project/") else {
            return error(404, "NAME_UNKNOWN");
        };
        match (request.method.as_str(), rest.split_once('/')) {
            ("POST", _) if rest == "blobs/uploads/" => self.begin(),
            ("HEAD" | "GET", Some(("blobs", digest))) => match self.blobs.get(digest) {
                Some(bytes) => answer(200, &[], bytes.clone()),
                None => error(404, "BLOB_UNKNOWN"),
            },
            ("HEAD" | "GET", Some(("manifests", name))) => {
                let accept = request.header("accept").unwrap_or_default();
                match self.manifests.get(name) {
                    Some((media_type, bytes)) if accept.contains(media_type.as_str()) => {
                        answer(200, &[("content-type", media_type)], bytes.clone())
                    }
                    Some(_) => error(406, "UNSUPPORTED"),
                    None => error(404, "MANIFEST_UNKNOWN"),
                }
            }
            ("PUT", Some(("manifests", name))) => self.manifest(request, name),
            _ => error(405, "UNSUPPORTED"),
        }
    }

    /// The session's address is relative, outside `/v2`, and has a query.
    fn begin(&mut self) -> Reply {
        self.started += 1;
        let session = format!("{}?state=a%2Bb%2F{}", self.started, self.started);
        self.sessions.insert(session.clone());
        let location = format!("/sessions/{session}");
        answer(202, &[("location", &location)], "")
    }

    fn session(&mut self, request: &Received, id: &str) -> Reply {
        let state = request.raw_query.split('&').next().unwrap();
        if !self.sessions.remove(&format!("{id}?{state}")) {
            return error(404, "BLOB_UPLOAD_UNKNOWN");
        }
        match request.method.as_str() {
            "DELETE" => answer(204, &[], ""),
            "PUT" => {
                let length = request
                    .header("content-length")
                    .and_then(|l| l.parse().ok());
                if length != Some(request.body.len()) {
                    return error(411, "SIZE_INVALID");
                }
                let digest = Sha256Digest::of(&request.body).to_string();
                if request.query.get("digest") != Some(&digest) {
                    return error(400, "DIGEST_INVALID");
                }
                let location = format!("/v2/project/blobs/{digest}");
                self.blobs.insert(digest, request.body.clone());
                answer(201, &[("location", &location)], "")
            }
            _ => error(405, "UNSUPPORTED"),
        }
    }

    fn manifest(&mut self, request: &Received, name: &str) -> Reply {
        let manifest: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let media_type = request.header("content-type").unwrap_or_default();
        if manifest["mediaType"] != media_type {
            return error(400, "MANIFEST_INVALID");
        }
        let layers = manifest["layers"].as_array().unwrap().iter();
        for blob in layers.chain([&manifest["config"]]) {
            if !self.blobs.contains_key(blob["digest"].as_str().unwrap()) {
                return error(404, "MANIFEST_BLOB_UNKNOWN");
            }
        }
        let digest = Sha256Digest::of(&request.body).to_string();
        for name in [name, &digest] {
            let manifest = (media_type.to_owned(), request.body.clone());
            self.manifests.insert(name.to_owned(), manifest);
        }
        answer(201, &[("location", "/v2/project/manifests/x")], "")
    }
}
