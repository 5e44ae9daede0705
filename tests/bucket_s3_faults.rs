//! What the client of S3 does when answers are lost, damaged or refused, and with servers of
//! its protocol that know less than S3. Azure's client is the same but for its dialect.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/bucket_suite.rs"]
#[allow(dead_code)]
mod bucket_suite;
#[path = "support/http_faults.rs"]
mod http_faults;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use bucket_suite::Strictness;
use bytes::Bytes;
use forebay::bucket::{
    Bucket, BucketError, Checksums, EntityTagBucket, ObjectKey, StoredObject, WriteCondition,
};
use http_body_util::{BodyExt as _, Full};
use http_faults::impatient;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Status(u16),
    /// 409 with this code.
    Conflict,
    ResetBefore,
    ResetAfter,
    Corrupt,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Bytes, String)>,
    requests: Vec<String>,
    faults: HashMap<usize, Fault>,
    /// The entity tag is not the MD5.
    kms: bool,
    /// A delete with a condition is answered 501.
    knows_no_delete_condition: bool,
    /// A delete's condition is not looked at.
    ignores_delete_condition: bool,
    /// Nor is a write's.
    ignores_write_condition: bool,
}

struct FakeS3 {
    state: Arc<Mutex<State>>,
    bucket: EntityTagBucket,
}

impl FakeS3 {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "tester"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let bucket = EntityTagBucket::s3("bucket", &variables, impatient()).unwrap();
        Self { state, bucket }
    }

    /// Strikes at the request number `at`, the first from now on being 0.
    fn fault(&self, at: usize, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        let number = state.requests.len() + at;
        state.faults.insert(number, fault);
    }

    fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    async fn create(&self) -> Result<StoredObject, BucketError> {
        let bytes = Bytes::from_static(b"the bytes");
        self.bucket
            .write(&key(), bytes, WriteCondition::Absent)
            .await
    }
}

fn key() -> ObjectKey {
    "dags/a.py".parse().unwrap()
}

type Reply = Response<Full<Bytes>>;

fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::builder().status(status);
    for (name, value) in headers {
        reply = reply.header(*name, *value);
    }
    reply.body(Full::new(body.into())).unwrap()
}

fn error(status: u16, code: &str) -> Reply {
    let body = format!("<Error><Code>{code}</Code><Message>It is so.</Message></Error>");
    reply(status, &[], body)
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Reply, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut state = state.lock().unwrap();
    let number = state.requests.len();
    state
        .requests
        .push(format!("{} {}", parts.method, parts.uri.path()));
    let fault = state.faults.remove(&number);
    match fault {
        Some(Fault::Status(status)) => return Ok(error(status, "Injected")),
        Some(Fault::Conflict) => return Ok(error(409, "ConditionalRequestConflict")),
        Some(Fault::ResetBefore) => return Err(io::Error::other("reset")),
        _ => {}
    }
    let answer = state.handle(&parts, &body);
    match fault {
        Some(Fault::ResetAfter) => Err(io::Error::other("reset")),
        Some(Fault::Corrupt) => Ok(answer.map(|_| Full::new("other bytes".into()))),
        _ => Ok(answer),
    }
}

impl State {
    fn handle(&mut self, parts: &hyper::http::request::Parts, body: &Bytes) -> Reply {
        let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap());
        assert!(
            header("authorization")
                .unwrap()
                .starts_with("AWS4-HMAC-SHA256 ")
        );
        let url = url::Url::parse("http://host").unwrap();
        let url = url.join(&parts.uri.to_string()).unwrap();
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        let name = url::Url::parse(&format!("x:?{}", url.path().replace('+', "%2B"))).unwrap();
        let path = name.query_pairs().next().unwrap().0.into_owned();
        let Some(key) = path.strip_prefix("/bucket/") else {
            return self.list(&query);
        };
        let now = self.objects.get(key).map(|(bytes, _)| self.tag(bytes));
        let holds = match (header("if-match"), header("if-none-match")) {
            (Some(wanted), _) => now.as_deref() == Some(wanted),
            (None, Some("*")) => now.is_none(),
            _ => true,
        };
        match parts.method {
            Method::PUT
                if now.is_none()
                    && !self.ignores_write_condition
                    && header("if-match").is_some() =>
            {
                error(404, "NoSuchKey")
            }
            Method::PUT if !holds && !self.ignores_write_condition => {
                error(412, "PreconditionFailed")
            }
            Method::PUT => {
                let sent = header("content-md5").unwrap();
                use base64::Engine as _;
                let md5 = base64::engine::general_purpose::STANDARD
                    .decode(sent)
                    .unwrap();
                if md5 != Checksums::of(body).md5 {
                    return error(400, "BadDigest");
                }
                let nonce = header("x-amz-meta-forebay-nonce").unwrap().to_owned();
                let tag = self.tag(body);
                self.objects.insert(key.to_owned(), (body.clone(), nonce));
                reply(200, &[("etag", &tag), self.encryption()], "")
            }
            Method::DELETE if self.knows_no_delete_condition && header("if-match").is_some() => {
                error(501, "NotImplemented")
            }
            Method::DELETE if !holds && !self.ignores_delete_condition => {
                error(412, "PreconditionFailed")
            }
            Method::DELETE => {
                self.objects.remove(key);
                reply(204, &[], "")
            }
            _ => match (self.objects.get(key), now) {
                (Some((bytes, nonce)), Some(tag)) => {
                    let headers = [
                        ("etag", tag.as_str()),
                        ("x-amz-meta-forebay-nonce", nonce),
                        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
                        self.encryption(),
                    ];
                    reply(200, &headers, bytes.clone())
                }
                _ => error(404, "NoSuchKey"),
            },
        }
    }

    fn encryption(&self) -> (&'static str, &'static str) {
        (
            "x-amz-server-side-encryption",
            if self.kms { "aws:kms" } else { "AES256" },
        )
    }

    fn tag(&self, bytes: &[u8]) -> String {
        let salt: &[u8] = if self.kms { b"salt" } else { b"" };
        format!(
            "\"{}\"",
            hex::encode(Checksums::of(&[salt, bytes].concat()).md5)
        )
    }

    /// Pages of three, with keys escaped as forms are.
    fn list(&self, query: &HashMap<String, String>) -> Reply {
        let (prefix, after) = (&query["prefix"], query.get("continuation-token"));
        let keys = self.objects.keys().filter(|key| key.starts_with(prefix));
        let mut keys = keys.filter(|key| after.is_none_or(|after| *key > after));
        let page: Vec<_> = keys.by_ref().take(3).collect();
        let mut text = "<ListBucketResult><EncodingType>url</EncodingType>".to_owned();
        if keys.next().is_some() {
            let last = page[page.len() - 1].replace('&', "&amp;");
            text.push_str(&format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"));
        }
        for key in page {
            let bytes = &self.objects[key].0;
            let name: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
            text.push_str(&format!(
                "<Contents><Key>{name}</Key><LastModified>1994-11-06T08:49:37.000Z</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                self.tag(bytes).replace('"', "&quot;"),
                bytes.len()
            ));
        }
        reply(200, &[], format!("{text}</ListBucketResult>"))
    }
}

#[tokio::test]
async fn a_server_that_knows_all_conditions() {
    let server = FakeS3::start().await;
    let strictness = Strictness {
        delete_preconditions: true,
        one_of_many_writers: true,
    };
    bucket_suite::all(&server.bucket, strictness).await;
}

#[tokio::test]
async fn a_server_that_knows_no_condition_on_deletes() {
    let server = FakeS3::start().await;
    server.state.lock().unwrap().knows_no_delete_condition = true;
    let strictness = Strictness {
        delete_preconditions: true,
        one_of_many_writers: true,
    };
    bucket_suite::all(&server.bucket, strictness).await;
}

/// A cache is collected only where it does.
#[tokio::test]
async fn whether_a_server_holds_to_conditions_is_tried_and_nothing_stays_of_it() {
    for (knows_none, ignores, ignores_writes, holds) in [
        (false, false, false, true),
        (true, false, false, false),
        (false, true, false, false),
        (false, false, true, false),
    ] {
        let server = FakeS3::start().await;
        {
            let mut state = server.state.lock().unwrap();
            state.knows_no_delete_condition = knows_none;
            state.ignores_delete_condition = ignores;
            state.ignores_write_condition = ignores_writes;
        }
        assert!(!server.bucket.tells_writes_apart());
        let tried = server.bucket.deletes_only_what_was_seen(&key()).await;
        assert_eq!(
            tried.unwrap(),
            holds,
            "501: {knows_none}, ignored: {ignores}"
        );
        assert!(server.state.lock().unwrap().objects.is_empty());
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_recognised_as_our_own() {
    let server = FakeS3::start().await;
    server.fault(0, Fault::ResetAfter);
    let written = server.create().await.unwrap();
    let asked = server.requests();
    assert_eq!(
        asked,
        [
            "PUT /bucket/dags/a.py",
            "PUT /bucket/dags/a.py",
            "HEAD /bucket/dags/a.py"
        ]
    );
    // The same for a replacement.
    server.fault(0, Fault::ResetAfter);
    let condition = WriteCondition::Unchanged(written.generation);
    let replaced = server.bucket.write(&key(), "other".into(), condition).await;
    assert_ne!(replaced.unwrap().generation, written.generation);
}

#[tokio::test]
async fn the_same_bytes_of_somebody_else_are_not_our_own_write() {
    let server = FakeS3::start().await;
    server.create().await.unwrap();
    server.fault(0, Fault::ResetBefore);
    let error = server.create().await.unwrap_err();
    assert!(
        matches!(error, BucketError::ConditionFailed { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn passing_failures_are_repeated() {
    for fault in [
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(503),
        Fault::Conflict,
        Fault::ResetBefore,
    ] {
        let server = FakeS3::start().await;
        server.fault(0, fault);
        server.create().await.unwrap();
        assert_eq!(server.requests().len(), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_permission() {
    let server = FakeS3::start().await;
    server.fault(0, Fault::Status(403));
    let error = server.create().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the AWS credentials in use may not s3:PutObject in s3://bucket"
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn damaged_bytes_are_read_again_and_never_given_out() {
    let server = FakeS3::start().await;
    server.create().await.unwrap();
    server.fault(0, Fault::Corrupt);
    let read = server.bucket.read(&key()).await.unwrap().unwrap();
    assert_eq!(read.bytes, "the bytes");
    for at in 0..3 {
        server.fault(at, Fault::Corrupt);
    }
    let error = server.bucket.read(&key()).await.unwrap_err();
    assert!(matches!(error, BucketError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_bucket_without_md5_is_refused_at_the_first_write() {
    let server = FakeS3::start().await;
    server.state.lock().unwrap().kms = true;
    let error = server.create().await.unwrap_err();
    assert!(matches!(error, BucketError::NoChecksums { .. }), "{error}");
    // What is there can be read all the same.
    let read = server.bucket.read(&key()).await.unwrap().unwrap();
    assert_eq!(
        (&read.bytes[..], read.object.md5),
        (&b"the bytes"[..], None)
    );
}
