//! The JSON API of Google Cloud Storage over HTTP, as documented and no more:
//! preconditions on writes and deletes, checksums verified, pages, metadata.
//! It fails as told at numbered requests, which no real service can be asked to do.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use forebay::bucket::Checksums;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

#[derive(Debug, Clone, Copy)]
pub(crate) enum HttpFault {
    /// Answers this status with `Retry-After: 0` and does nothing.
    Status(u16),
    /// The same without a wish.
    StatusAlone(u16),
    /// Closes the connection and does nothing.
    ResetBefore,
    /// Does what was asked and closes the connection.
    ResetAfter,
    /// Does what was asked and answers with half the body.
    Truncate,
    /// Does what was asked and answers with half the body, and then nothing comes.
    StallWithin,
    /// Does what was asked and flips a bit of the body.
    Corrupt,
    /// Flips a bit of the next upload on its way here.
    Flip,
}

struct Entry {
    bytes: Bytes,
    generation: u64,
    metadata: Value,
    updated: Timestamp,
}

/// Holds back the requests that have these bytes in their body.
struct Gate {
    bytes: &'static str,
    arrived: Semaphore,
    open: Semaphore,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Entry>,
    generation: u64,
    requests: Vec<String>,
    faults: HashMap<usize, HttpFault>,
    struck: bool,
    gate: Option<Arc<Gate>>,
    expected_token: Option<String>,
    later_token: Option<(usize, String)>,
    hides_last_modified: bool,
}

/// The server; it ends with the test's runtime.
pub(crate) struct FakeGcs {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

const BUCKET: &str = "bucket";
/// Objects in one page of a listing.
pub(crate) const PAGE: usize = 3;

type Reply = Response<BoxBody<Bytes, io::Error>>;

impl FakeGcs {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                    // An injected reset is an error here, and meant.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(connection), service)
                        .await;
                });
            }
        });
        Self { address, state }
    }

    /// Strikes at the request number `at`, the first from now on being 0.
    pub(crate) fn fault(&self, at: usize, fault: HttpFault) {
        let mut state = self.state.lock().unwrap();
        let number = state.requests.len() + at;
        state.faults.insert(number, fault);
    }

    pub(crate) fn expect_token(&self, token: &str) {
        self.state.lock().unwrap().expected_token = Some(token.to_owned());
    }

    /// From the request number `at` on, the first from now on being 0, another token is wanted.
    pub(crate) fn expect_token_after(&self, at: usize, token: &str) {
        let mut state = self.state.lock().unwrap();
        let number = state.requests.len() + at;
        state.later_token = Some((number, token.to_owned()));
    }

    /// Whether the last fault was done.
    pub(crate) fn has_struck(&self) -> bool {
        self.state.lock().unwrap().struck
    }

    /// Lets an hour pass for leases.
    pub(crate) fn pass_an_hour(&self) {
        let mut state = self.state.lock().unwrap();
        for entry in state.objects.values_mut() {
            entry.updated -= SignedDuration::from_hours(1);
        }
    }

    /// Holds back every request with these bytes in its body, until [`Self::open_gate`].
    pub(crate) fn close_gate(&self, bytes: &'static str) {
        let gate = Gate {
            bytes,
            arrived: Semaphore::new(0),
            open: Semaphore::new(0),
        };
        self.state.lock().unwrap().gate = Some(Arc::new(gate));
    }

    fn gate(&self) -> Arc<Gate> {
        Arc::clone(self.state.lock().unwrap().gate.as_ref().unwrap())
    }

    /// Waits until a request is held back.
    pub(crate) async fn arrival(&self) {
        self.gate().arrived.acquire().await.unwrap().forget();
    }

    pub(crate) fn open_gate(&self) {
        let gate = self.state.lock().unwrap().gate.take();
        gate.unwrap().open.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// The documentation of media downloads does not promise the header.
    pub(crate) fn hide_last_modified(&self) {
        self.state.lock().unwrap().hides_last_modified = true;
    }

    /// What was asked so far: method, path and query.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn content(&self, key: &str) -> Option<Bytes> {
        let state = self.state.lock().unwrap();
        state.objects.get(key).map(|entry| entry.bytes.clone())
    }

    /// Keys and bytes under a prefix.
    pub(crate) fn contents(&self, prefix: &str) -> BTreeMap<String, Bytes> {
        let state = self.state.lock().unwrap();
        let objects = state.objects.iter();
        objects
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (key.clone(), entry.bytes.clone()))
            .collect()
    }

    /// What somebody else writes.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        state.put(key, Bytes::copy_from_slice(bytes), json!({}));
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Reply, io::Error> {
    let (parts, body) = request.into_parts();
    let mut body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let gate = state.lock().unwrap().gate.clone();
    if let Some(gate) = gate.filter(|gate| has(&body, gate.bytes)) {
        gate.arrived.add_permits(1);
        let _ = gate.open.acquire().await;
    }
    let mut state = state.lock().unwrap();
    let number = state.requests.len();
    state
        .requests
        .push(format!("{} {}", parts.method, parts.uri));
    let mut fault = state.faults.remove(&number);
    if matches!(fault, Some(HttpFault::Flip)) {
        if body.is_empty() {
            // Not this one: the next.
            state.faults.insert(number + 1, HttpFault::Flip);
            fault = None;
        } else {
            let mut damaged = body.to_vec();
            // Near the end are the bytes of the object, before them what is said of it.
            let at = damaged.len() - 45;
            damaged[at] ^= 1;
            body = damaged.into();
        }
    }
    state.struck |= fault.is_some();
    if let Some((_, token)) = state.later_token.take_if(|(from, _)| *from <= number) {
        state.expected_token = Some(token);
    }
    match fault {
        Some(HttpFault::Status(status)) => {
            let mut reply = error(status, "injected");
            reply
                .headers_mut()
                .insert("retry-after", "0".parse().unwrap());
            return Ok(reply.map(whole));
        }
        Some(HttpFault::StatusAlone(status)) => return Ok(error(status, "injected").map(whole)),
        Some(HttpFault::ResetBefore) => return Err(io::Error::other("reset")),
        _ => {}
    }
    let authorized = match &state.expected_token {
        None => true,
        Some(token) => parts
            .headers
            .get("authorization")
            .is_some_and(|value| value == &format!("Bearer {token}")),
    };
    let reply = if authorized {
        state.handle(&parts, &body)
    } else {
        error(401, "Invalid Credentials")
    };
    match fault {
        Some(HttpFault::ResetAfter) => Err(io::Error::other("reset")),
        Some(HttpFault::Truncate) => Ok(reply.map(|bytes| {
            let half = bytes.slice(..bytes.len() / 2);
            BodyExt::boxed(StreamBody::new(stream::iter([
                Ok(Frame::data(half)),
                Err(io::Error::other("cut")),
            ])))
        })),
        Some(HttpFault::StallWithin) => Ok(reply.map(|bytes| {
            let half = stream::iter([Ok(Frame::data(bytes.slice(..bytes.len() / 2)))]);
            BodyExt::boxed(StreamBody::new(StreamExt::chain(half, stream::pending())))
        })),
        Some(HttpFault::Corrupt) => Ok(reply.map(|bytes| {
            let mut bytes = bytes.to_vec();
            bytes[0] ^= 1;
            whole(bytes.into())
        })),
        _ => Ok(reply.map(whole)),
    }
}

fn has(body: &[u8], part: &str) -> bool {
    body.windows(part.len())
        .any(|window| window == part.as_bytes())
}

fn whole(bytes: Bytes) -> BoxBody<Bytes, io::Error> {
    Full::new(bytes)
        .map_err(|never: Infallible| match never {})
        .boxed()
}

fn error(status: u16, message: &str) -> Response<Bytes> {
    let body = json!({"error": {"code": status, "message": message}});
    reply(StatusCode::from_u16(status).unwrap(), body.to_string())
}

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    Response::builder()
        .status(status)
        .body(body.into())
        .unwrap()
}

impl State {
    fn put(&mut self, key: &str, bytes: Bytes, metadata: Value) {
        self.generation += 1;
        let entry = Entry {
            bytes,
            generation: 1_700_000_000_000_000 + self.generation,
            metadata,
            updated: Timestamp::now(),
        };
        self.objects.insert(key.to_owned(), entry);
    }

    fn handle(&mut self, parts: &hyper::http::request::Parts, body: &Bytes) -> Response<Bytes> {
        let url = url::Url::parse("http://host").unwrap();
        let url = url.join(&parts.uri.to_string()).unwrap();
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        let path: Vec<String> = url.path_segments().unwrap().map(unescape).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let wanted = query
            .get("ifGenerationMatch")
            .map(|g| g.parse::<u64>().unwrap());
        match (&parts.method, path.as_slice()) {
            (_, ["storage", "v1", "b", name, ..] | ["upload", "storage", "v1", "b", name, ..])
                if *name != BUCKET =>
            {
                error(404, "The specified bucket does not exist.")
            }
            (&Method::GET, ["storage", "v1", "b", _, "o"]) => self.list(&query),
            (&Method::GET, ["storage", "v1", "b", _, "o", key]) => match self.objects.get(*key) {
                None => error(404, &format!("No such object: {BUCKET}/{key}")),
                Some(entry) if query.get("alt").is_some_and(|alt| alt == "media") => {
                    let sums = Checksums::of(&entry.bytes);
                    let mut reply = reply(StatusCode::OK, entry.bytes.clone());
                    let headers = reply.headers_mut();
                    headers.insert("x-goog-generation", entry.generation.into());
                    for hash in [
                        format!("crc32c={}", BASE64.encode(sums.crc32c.to_be_bytes())),
                        format!("md5={}", BASE64.encode(sums.md5)),
                    ] {
                        headers.append("x-goog-hash", hash.parse().unwrap());
                    }
                    let modified = entry
                        .updated
                        .strftime("%a, %d %b %Y %H:%M:%S GMT")
                        .to_string();
                    if !self.hides_last_modified {
                        headers.insert("last-modified", modified.parse().unwrap());
                    }
                    reply
                }
                Some(entry) => reply(StatusCode::OK, resource(key, entry).to_string()),
            },
            (&Method::POST, ["upload", "storage", "v1", "b", _, "o"]) => {
                let Some((about, bytes)) = parse_multipart(&parts.headers, body) else {
                    return error(400, "malformed multipart body");
                };
                let key = about["name"].as_str().unwrap().to_owned();
                let current = self.objects.get(&key).map_or(0, |entry| entry.generation);
                let sums = Checksums::of(&bytes);
                if wanted.is_none() {
                    error(400, "a write without a precondition")
                } else if wanted != Some(current) {
                    error(
                        412,
                        "At least one of the pre-conditions you specified did not hold.",
                    )
                } else if about["crc32c"] != BASE64.encode(sums.crc32c.to_be_bytes())
                    || about["md5Hash"] != BASE64.encode(sums.md5)
                {
                    error(400, "Provided checksum doesn't match calculated checksum.")
                } else {
                    self.put(&key, bytes, about["metadata"].clone());
                    reply(
                        StatusCode::OK,
                        resource(&key, &self.objects[&key]).to_string(),
                    )
                }
            }
            (&Method::DELETE, ["storage", "v1", "b", _, "o", key]) => {
                match self.objects.get(*key).map(|entry| entry.generation) {
                    None => error(404, "No such object"),
                    Some(current) if wanted != Some(current) => error(412, "pre-condition"),
                    Some(_) => {
                        self.objects.remove(*key);
                        reply(StatusCode::NO_CONTENT, "")
                    }
                }
            }
            _ => error(400, "unknown request"),
        }
    }

    fn list(&self, query: &HashMap<String, String>) -> Response<Bytes> {
        let prefix = query.get("prefix").cloned().unwrap_or_default();
        let after = query.get("pageToken").cloned().unwrap_or_default();
        let mut keys = self
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let page: Vec<_> = keys.by_ref().take(PAGE).collect();
        let mut body = json!({});
        // The service leaves `items` out when there are none.
        if !page.is_empty() {
            body["items"] = page
                .iter()
                .map(|(key, entry)| resource(key, entry))
                .collect();
        }
        if let (Some((last, _)), Some(_)) = (page.last(), keys.next()) {
            body["nextPageToken"] = json!(last);
        }
        reply(StatusCode::OK, body.to_string())
    }
}

fn resource(key: &str, entry: &Entry) -> Value {
    let sums = Checksums::of(&entry.bytes);
    json!({
        "name": key,
        "size": sums.size.to_string(),
        "crc32c": BASE64.encode(sums.crc32c.to_be_bytes()),
        "md5Hash": BASE64.encode(sums.md5),
        "generation": entry.generation.to_string(),
        "updated": entry.updated,
        "metadata": entry.metadata,
    })
}

fn unescape(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut plain = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            plain.push(u8::from_str_radix(&segment[at + 1..at + 3], 16).unwrap());
            at += 3;
        } else {
            plain.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(plain).unwrap()
}

/// The two parts of a `multipart/related` body: the resource and the bytes.
fn parse_multipart(headers: &hyper::HeaderMap, body: &Bytes) -> Option<(Value, Bytes)> {
    let content_type = headers.get("content-type")?.to_str().ok()?;
    let boundary = content_type.strip_prefix("multipart/related; boundary=")?;
    let find = |from: usize, what: &str| {
        let what = what.as_bytes();
        let at = body[from..].windows(what.len()).position(|w| w == what)?;
        Some(from + at)
    };
    let separator = format!("\r\n--{boundary}");
    let about_start = find(0, "\r\n\r\n")? + 4;
    let about_end = find(about_start, &separator)?;
    let bytes_start = find(about_end + separator.len(), "\r\n\r\n")? + 4;
    let bytes_end = body.len().checked_sub(separator.len() + 4)?;
    (&body[bytes_end..] == format!("{separator}--\r\n").as_bytes()).then_some(())?;
    let about = serde_json::from_slice(&body[about_start..about_end]).ok()?;
    Some((about, body.slice(bytes_start..bytes_end)))
}
