//! An HTTP proxy of the tests' own: it tunnels (`CONNECT`) and forwards, and it alone
//! knows where the hosts of the tests are.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

/// A running proxy; it ends with this value.
pub(crate) struct HttpProxy {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: tokio::task::JoinHandle<()>,
}

/// What the proxy was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// `HOST:PORT` for a tunnel, otherwise the whole address.
    pub(crate) target: String,
    pub(crate) authorization: Option<String>,
}

impl HttpProxy {
    /// Starts one that finds the hosts (with their ports) at these addresses.
    pub(crate) async fn start(hosts: BTreeMap<String, String>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (log, hosts) = (Arc::clone(&seen), Arc::new(hosts));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, hosts) = (Arc::clone(&log), Arc::clone(&hosts));
                let service = service_fn(move |request: Request<Incoming>| {
                    log.lock().unwrap().push(Seen::of(&request));
                    serve(Arc::clone(&hosts), request)
                });
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self {
            address,
            seen,
            server,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Seen {
    fn of(request: &Request<Incoming>) -> Self {
        let authorization = request.headers().get("proxy-authorization");
        Self {
            method: request.method().clone(),
            target: request.uri().to_string(),
            authorization: authorization.map(|value| value.to_str().unwrap().to_owned()),
        }
    }
}

async fn serve(
    hosts: Arc<BTreeMap<String, String>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let authority = request.uri().authority().map(ToString::to_string);
    let Some(address) = authority.and_then(|authority| hosts.get(&authority).cloned()) else {
        return Ok(status(StatusCode::BAD_GATEWAY));
    };
    if request.method() != Method::CONNECT {
        return Ok(forward(&address, request).await);
    }
    tokio::spawn(async move {
        let mut there = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut here = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
    });
    Ok(status(StatusCode::OK))
}

async fn forward(address: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let (parts, body) = request.into_parts();
    let client = forebay::http::HttpClient::new(&Default::default()).unwrap();
    let url = format!("http://{address}{path}").parse().unwrap();
    let body = body.collect().await.unwrap().to_bytes();
    let answer = client
        .request(parts.method, url)
        .headers(parts.headers)
        .body(body)
        .send()
        .await
        .unwrap();
    let mut response = status(answer.status());
    *response.headers_mut() = answer.headers().clone();
    response.headers_mut().remove("transfer-encoding");
    *response.body_mut() = Full::new(answer.bytes().await.unwrap());
    response
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
