//! A proxy in front of a registry or a bucket that hurts requests in every way that a network
//! or a loaded server does: one in so many by chance, or a numbered one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forebay::http::{HttpClient, HttpOptions};
use futures_util::StreamExt;
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
    /// The half of the body is through, and nothing more comes.
    StallWithin,
    /// It is done, and no answer ever comes.
    StallAfter,
    /// A bit of a blob falls over on its way to the registry.
    Flipped,
}

/// What chance does; a stall within is only for numbered requests.
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

/// Says which requests are hurt, and how.
pub(crate) trait Schedule: Send + Sync + 'static {
    /// `what` is the method with the path and the query.
    fn fault(&self, what: &str) -> Option<Fault>;

    /// A request stands still now.
    fn stands_still(&self) {}
}

/// One in so many requests, the same in every run.
pub(crate) struct Chance(Mutex<Turns>);

struct Turns {
    state: u64,
    one_in: u64,
    /// The fault whose turn it is stands first.
    turns: VecDeque<Fault>,
    done: BTreeMap<Fault, usize>,
    requests: usize,
}

impl Chance {
    pub(crate) fn one_in(one_in: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Turns {
            state: 0x9e37_79b9_7f4a_7c15,
            one_in,
            turns: FAULTS.into(),
            done: BTreeMap::new(),
            requests: 0,
        })))
    }

    /// How often each fault was done, and the number of all requests.
    pub(crate) fn done(&self) -> (BTreeMap<Fault, usize>, usize) {
        let turns = self.0.lock().unwrap();
        (turns.done.clone(), turns.requests)
    }

    /// How many kinds of faults there are.
    pub(crate) const KINDS: usize = FAULTS.len();
}

impl Schedule for Chance {
    fn fault(&self, what: &str) -> Option<Fault> {
        let carries_blob = what.starts_with("PUT ") && what.contains("/uploads/");
        self.0.lock().unwrap().next(carries_blob)
    }
}

impl Turns {
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

/// One request stands still, of all that go through the proxies which share this.
#[derive(Default)]
pub(crate) struct Numbered {
    state: Mutex<Traffic>,
    still: tokio::sync::Notify,
}

#[derive(Default)]
struct Traffic {
    requests: Vec<String>,
    strike: Option<(Struck, Fault)>,
    struck: Option<String>,
}

/// Which request it is.
#[derive(Debug, Clone)]
pub(crate) enum Struck {
    /// The one with this number, the first being 0.
    Number(usize),
    /// The first that starts so.
    First(&'static str),
}

impl Numbered {
    /// Forgets all requests; the next is number 0.
    pub(crate) fn strike(&self, struck: Struck, fault: Fault) {
        *self.state.lock().unwrap() = Traffic {
            requests: Vec::new(),
            strike: Some((struck, fault)),
            struck: None,
        };
    }

    /// Forgets all requests, and hurts none.
    pub(crate) fn heal(&self) {
        *self.state.lock().unwrap() = Default::default();
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The request that was hurt.
    pub(crate) fn struck(&self) -> String {
        self.state.lock().unwrap().struck.clone().unwrap()
    }

    /// Waits until the request stands still.
    pub(crate) async fn still(&self) {
        self.still.notified().await;
    }
}

impl Schedule for Numbered {
    fn fault(&self, what: &str) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        let number = state.requests.len();
        state.requests.push(what.to_owned());
        let struck = state.strike.take_if(|(struck, _)| match struck {
            Struck::Number(at) => *at == number,
            Struck::First(start) => what.starts_with(*start),
        });
        let (_, fault) = struck?;
        state.struck = Some(what.to_owned());
        Some(fault)
    }

    fn stands_still(&self) {
        self.still.notify_one();
    }
}

/// The running proxy.
pub(crate) struct FaultyProxy {
    address: String,
    server: tokio::task::JoinHandle<()>,
}

/// Ends a connection: hyper gives up on a service that fails.
type Broken = std::io::Error;
type Answer = Response<BoxBody<Bytes, Broken>>;

impl FaultyProxy {
    /// Passes requests on to `upstream`, and hurts those that the schedule names.
    pub(crate) async fn start(upstream: &str, schedule: Arc<dyn Schedule>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let client = HttpClient::new(&HttpOptions::default()).unwrap();
        let upstream = upstream.to_owned();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (client, upstream) = (client.clone(), upstream.clone());
                let schedule = Arc::clone(&schedule);
                let service = service_fn(move |request: Request<Incoming>| {
                    let what = format!("{} {}", request.method(), request.uri());
                    let fault = schedule.fault(&what);
                    let schedule = Arc::clone(&schedule);
                    serve(client.clone(), upstream.clone(), schedule, fault, request)
                });
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, server }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    client: HttpClient,
    upstream: String,
    schedule: Arc<dyn Schedule>,
    fault: Option<Fault>,
    request: Request<Incoming>,
) -> Result<Answer, Broken> {
    let broken = || Broken::other("broken on demand");
    match fault {
        Some(Fault::ResetBefore) => return Err(broken()),
        Some(Fault::StallBefore) => {
            schedule.stands_still();
            return std::future::pending().await;
        }
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
    let forwarded = client
        .streaming_request(parts.method, url.parse().unwrap())
        .unwrap()
        .headers(parts.headers);
    if fault == Some(Fault::StallWithin) {
        let half = futures_util::stream::iter([Ok::<_, Broken>(body.slice(..body.len() / 2))]);
        let half = StreamExt::chain(half, futures_util::stream::pending());
        let sending = forwarded.body(reqwest::Body::wrap_stream(half)).send();
        // No server answers before it has all; where there is nothing to be halved, nothing is sent.
        let enough = std::time::Duration::from_millis(if body.is_empty() { 0 } else { 50 });
        let _ = tokio::time::timeout(enough, sending).await;
        schedule.stands_still();
        return std::future::pending().await;
    }
    let answer = forwarded.body(body).send().await.map_err(Broken::other)?;
    match fault {
        Some(Fault::ResetAfter) => return Err(broken()),
        Some(Fault::StallAfter) => {
            schedule.stands_still();
            return std::future::pending().await;
        }
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
