//! A proxy in front of a server that counts what passes: requests, and the bytes of bodies.
//! Names, bodies and status are the server's; connections are kept open on both sides. On
//! demand it is as slow or as ill as a server can be.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use forebay::http::{HttpClient, HttpOptions};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

/// A request that has passed.
#[derive(Debug, Clone)]
pub(crate) struct Passed {
    /// `METHOD PATH`.
    pub(crate) what: String,
    /// Bytes of its body.
    pub(crate) up: usize,
    /// Bytes of the answer's body.
    pub(crate) down: usize,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, Default)]
#[allow(dead_code, reason = "not every test hinders")]
pub(crate) enum Gate {
    #[default]
    Open,
    /// It is answered after a while.
    Slow(Duration),
    /// 503, and nothing was done.
    Unavailable,
    /// There is never an answer.
    Silent,
}

/// A running proxy; it ends with this value.
pub(crate) struct Meter {
    address: String,
    passed: Arc<Mutex<Vec<Passed>>>,
    gate: Arc<Mutex<Gate>>,
    _runtime: tokio::runtime::Runtime,
}

impl Meter {
    /// Starts one in front of `HOST:PORT`.
    pub(crate) fn start(upstream: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let passed = Arc::<Mutex<Vec<Passed>>>::default();
        let gate = Arc::<Mutex<Gate>>::default();
        let (upstream, log) = (Arc::<str>::from(upstream), Arc::clone(&passed));
        let set = Arc::clone(&gate);
        let client = HttpClient::new(&HttpOptions::default()).unwrap();
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (client, upstream) = (client.clone(), Arc::clone(&upstream));
                let (log, set) = (Arc::clone(&log), Arc::clone(&set));
                let service = service_fn(move |request| {
                    let gate = *set.lock().unwrap();
                    pass(
                        client.clone(),
                        Arc::clone(&upstream),
                        Arc::clone(&log),
                        gate,
                        request,
                    )
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
            passed,
            gate,
            _runtime: runtime,
        }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// From now on requests are treated so.
    #[allow(dead_code, reason = "not every test hinders")]
    pub(crate) fn set(&self, gate: Gate) {
        *self.gate.lock().unwrap() = gate;
    }

    /// What has come since this was last asked; what is still on its way is not in it.
    pub(crate) fn take(&self) -> Vec<Passed> {
        std::mem::take(&mut self.passed.lock().unwrap())
    }
}

async fn pass(
    client: HttpClient,
    upstream: Arc<str>,
    log: Arc<Mutex<Vec<Passed>>>,
    gate: Gate,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    let body = body.to_bytes();
    let (what, up) = (format!("{} {}", parts.method, parts.uri.path()), body.len());
    match gate {
        Gate::Open => {}
        Gate::Slow(pause) => tokio::time::sleep(pause).await,
        Gate::Unavailable | Gate::Silent => {
            log.lock().unwrap().push(Passed { what, up, down: 0 });
            if matches!(gate, Gate::Silent) {
                std::future::pending::<()>().await;
            }
            let answer = Response::builder().status(503).body(Full::default());
            return answer.map_err(std::io::Error::other);
        }
    }
    // The `Host` that was asked for stays: servers make addresses of it.
    let url = format!("http://{upstream}{}", parts.uri);
    let answer = client
        .streaming_request(parts.method, url.parse().unwrap())
        .unwrap()
        .headers(parts.headers)
        .body(body)
        .send()
        .await
        .map_err(std::io::Error::other)?;
    let mut response = Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        *headers = answer.headers().clone();
        headers.remove("transfer-encoding");
    }
    let content = answer.bytes().await.map_err(std::io::Error::other)?;
    let down = content.len();
    log.lock().unwrap().push(Passed { what, up, down });
    Ok(response.body(Full::new(content)).unwrap())
}
