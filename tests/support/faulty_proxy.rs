//! A proxy in front of a registry that hurts one request in so many, in every way
//! that a network or a loaded server does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forebay::http::{HttpClient, HttpOptions};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The connection ends before anything is read.
    ResetBefore,
    /// The connection ends when the half of the body is through.
    ResetWithin,
    /// The request is done, and the connection ends instead of an answer.
    ResetAfter,
    /// 503, and nothing was done.
    Unavailable,
    /// 503, although it was done.
    UnavailableAfter,
    /// 429 with a wish.
    TooMany,
    /// The answer ends before its end.
    Truncated,
    /// Nothing is done, and no answer ever comes.
    StallBefore,
    /// It is done, and no answer ever comes.
    StallAfter,
    /// A bit of a blob falls over on its way to the registry.
    Flipped,
}

const FAULTS: [Fault; 10] = [
    Fault::ResetBefore,
    Fault::ResetWithin,
    Fault::ResetAfter,
    Fault::Unavailable,
    Fault::UnavailableAfter,
    Fault::TooMany,
    Fault::Truncated,
    Fault::StallBefore,
    Fault::StallAfter,
    Fault::Flipped,
];

struct Chance {
    state: u64,
    one_in: u64,
    /// The fault whose turn it is stands first.
    turns: VecDeque<Fault>,
    done: BTreeMap<Fault, usize>,
    requests: usize,
}

impl Chance {
    /// Chance says when, and turns say what, so that every fault comes.
    fn next(&mut self, carries_blob: bool) -> Option<Fault> {
        self.requests += 1;
        // xorshift64: the same faults in every run.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        if !self.state.is_multiple_of(self.one_in) {
            return None;
        }
        let fits = |fault: &Fault| *fault != Fault::Flipped || carries_blob;
        let turn = self.turns.iter().position(fits)?;
        let fault = self.turns.remove(turn)?;
        self.turns.push_back(fault);
        *self.done.entry(fault).or_default() += 1;
        Some(fault)
    }
}

/// The running proxy.
pub(crate) struct FaultyProxy {
    address: String,
    chance: Arc<Mutex<Chance>>,
    server: tokio::task::JoinHandle<()>,
}

/// Ends a connection: hyper gives up on a service that fails.
type Broken = std::io::Error;
type Answer = Response<BoxBody<Bytes, Broken>>;

impl FaultyProxy {
    /// Hurts one in `one_in` requests to `upstream`.
    pub(crate) async fn start(upstream: &str, one_in: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let chance = Arc::new(Mutex::new(Chance {
            state: 0x9e37_79b9_7f4a_7c15,
            one_in,
            turns: FAULTS.into(),
            done: BTreeMap::new(),
            requests: 0,
        }));
        let client = HttpClient::new(&HttpOptions::default()).unwrap();
        let (upstream, shared) = (upstream.to_owned(), Arc::clone(&chance));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (client, upstream) = (client.clone(), upstream.clone());
                let chance = Arc::clone(&shared);
                let service = service_fn(move |request: Request<Incoming>| {
                    let fault = chance.lock().unwrap().next(carries_blob(&request));
                    serve(client.clone(), upstream.clone(), fault, request)
                });
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            chance,
            server,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How often each fault was done, and the number of all requests.
    pub(crate) fn done(&self) -> (BTreeMap<Fault, usize>, usize) {
        let chance = self.chance.lock().unwrap();
        (chance.done.clone(), chance.requests)
    }

    /// How many kinds of faults there are.
    pub(crate) const KINDS: usize = FAULTS.len();
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn carries_blob(request: &Request<Incoming>) -> bool {
    request.method() == hyper::Method::PUT && request.uri().path().contains("/uploads/")
}

async fn serve(
    client: HttpClient,
    upstream: String,
    fault: Option<Fault>,
    request: Request<Incoming>,
) -> Result<Answer, Broken> {
    let broken = || Broken::other("broken on demand");
    match fault {
        Some(Fault::ResetBefore) => return Err(broken()),
        Some(Fault::StallBefore) => return std::future::pending().await,
        Some(Fault::Unavailable) => return Ok(status(503, None)),
        Some(Fault::TooMany) => return Ok(status(429, Some("12.5ms"))),
        _ => {}
    }
    let (parts, mut incoming) = request.into_parts();
    if fault == Some(Fault::ResetWithin) {
        let _ = incoming.frame().await;
        return Err(broken());
    }
    let mut body = incoming.collect().await.map_err(|_| broken())?.to_bytes();
    if fault == Some(Fault::Flipped) {
        let mut damaged = body.to_vec();
        damaged[body.len() / 2] ^= 1;
        body = damaged.into();
    }
    // The registry makes its addresses from the name by which it is called.
    let url = format!("http://{upstream}{}", parts.uri);
    let answer = client
        .streaming_request(parts.method, url.parse().unwrap())
        .unwrap()
        .headers(parts.headers)
        .body(body)
        .send()
        .await
        .map_err(Broken::other)?;
    match fault {
        Some(Fault::ResetAfter) => return Err(broken()),
        Some(Fault::StallAfter) => return std::future::pending().await,
        Some(Fault::UnavailableAfter) => return Ok(status(503, None)),
        _ => {}
    }
    let (status, headers) = (answer.status(), answer.headers().clone());
    let content = answer.bytes().await.map_err(Broken::other)?;
    let mut frames = vec![Ok(Frame::data(content.clone()))];
    if fault == Some(Fault::Truncated) {
        frames = vec![
            Ok(Frame::data(content.slice(..content.len() / 2))),
            Err(broken()),
        ];
    }
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut response = Response::new(BoxBody::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn status(status: u16, retry_after: Option<&str>) -> Answer {
    let nothing = http_body_util::Empty::new().map_err(|never| match never {});
    let mut response = Response::builder().status(status);
    if let Some(wish) = retry_after {
        response = response.header("retry-after", wish);
    }
    response.body(BoxBody::new(nothing)).unwrap()
}
