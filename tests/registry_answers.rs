//! Every status that the distribution specification lets a registry answer with, and those
//! that registries answer with all the same, at every step of a push and a pull: what is
//! taken as done, what is tried again, what starts again, and what is an error at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/images.rs"]
#[allow(dead_code)]
mod images;
#[path = "support/open.rs"]
mod open;
#[path = "support/strict_registry.rs"]
#[allow(dead_code)]
mod strict_registry;

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use forebay::http::{HttpClient, HttpOptions, RetryPolicy};
use forebay::oci::{BlobSource, Descriptor, Sha256Digest, Tag};
use forebay::progress::Silent;
use forebay::registry::{ManifestName, OpenOptions, PushReport, Registry, RegistryError, push};
use strict_registry::{Received, Reply, StrictRegistry, answer, error};

const UPLOADS: &str = "/v2/project/blobs/uploads/";
const SESSIONS: &str = "/sessions/";
const BLOBS: &str = "/v2/project/blobs/";
const MANIFESTS: &str = "/v2/project/manifests/";

fn tag() -> Tag {
    "1".parse().unwrap()
}

fn open(server: &StrictRegistry) -> Arc<dyn Registry> {
    open::repository(&server.repository(), Vec::new())
}

/// Pushes an image of one layer: two blobs.
async fn push_one(server: &StrictRegistry) -> Result<PushReport, RegistryError> {
    let image = images::image(&["a"]);
    push(&*open(server), &image, &[tag()], None, &Silent).await
}

/// A registry that gives this answer once, to the first request of a kind.
async fn once(
    method: &'static str,
    path: &'static str,
    reply: impl FnOnce(&Received) -> Reply + Send + 'static,
) -> StrictRegistry {
    let mut reply = Some(reply);
    StrictRegistry::start_with(move |request| match request.is(method, path) {
        true => reply.take().map(|reply| reply(request)),
        false => None,
    })
    .await
}

/// A registry that gives this answer to every request of a kind.
async fn always(
    method: &'static str,
    path: &'static str,
    reply: impl Fn(&Received) -> Reply + Send + 'static,
) -> StrictRegistry {
    StrictRegistry::start_with(move |request| request.is(method, path).then(|| reply(request)))
        .await
}

#[tokio::test]
async fn nobody_is_asked_whether_it_is_a_registry() {
    let server = StrictRegistry::start().await;
    push_one(&server).await.unwrap();
    assert!(
        server
            .received()
            .iter()
            .all(|request| request.path != "/v2/")
    );
}

#[tokio::test]
async fn what_was_lost_on_the_way_is_sent_again_in_a_new_session() {
    for (status, code) in [
        (404, "BLOB_UPLOAD_UNKNOWN"),
        (400, "BLOB_UPLOAD_INVALID"),
        (400, "DIGEST_INVALID"),
        (400, "SIZE_INVALID"),
        (416, "BLOB_UPLOAD_INVALID"),
        (408, "X"),
        (429, "TOOMANYREQUESTS"),
        (499, "X"),
        (500, "UNKNOWN"),
        (502, "X"),
        (503, "UNAVAILABLE"),
        (504, "X"),
    ] {
        let server = once("PUT", SESSIONS, move |_| error(status, code)).await;
        let report = push_one(&server).await.unwrap();
        assert_eq!(report.uploaded.len(), 2, "{status} {code}");
        assert_eq!(server.count("PUT", SESSIONS), 3, "{status} {code}");
        // The session that failed is not used again.
        assert_eq!(server.count("POST", UPLOADS), 3, "{status} {code}");
    }
}

#[tokio::test]
async fn what_a_repetition_does_not_mend_is_an_error_at_once() {
    for (method, path) in [("PUT", SESSIONS), ("POST", UPLOADS), ("PUT", MANIFESTS)] {
        for (status, code) in [
            (400, "NAME_INVALID"),
            (403, "DENIED"),
            (405, "UNSUPPORTED"),
            (409, "TAG_INVALID"),
            (413, "MANIFEST_INVALID"),
            (415, "UNSUPPORTED"),
            (451, "DENIED"),
        ] {
            let server = always(method, path, move |request| {
                // Mounts may be refused in any way: the blob can be sent.
                match request.query.contains_key("mount") {
                    true => answer(202, &[], ""),
                    false => error(status, code),
                }
            })
            .await;
            let failure = push_one(&server).await.unwrap_err();
            let text = failure.to_string();
            match failure {
                RegistryError::Denied { .. } => assert_eq!(status, 403, "{text}"),
                RegistryError::Unexpected { status: told, .. } => assert_eq!(told, status),
                other => panic!("{method} {path} {status}: {other:?}"),
            }
            assert!(text.contains(&code.to_lowercase()), "{text}");
            let asked = server.received();
            let asked = asked
                .iter()
                .filter(|r| r.is(method, path) && !r.query.contains_key("mount"));
            // Two blobs travel at the same time, and each is refused once.
            let most = if path == MANIFESTS { 1 } else { 2 };
            assert!(asked.count() <= most, "{method} {path} {status}");
        }
    }
}

#[tokio::test]
async fn every_success_of_an_upload_is_one() {
    for status in [200, 201, 204] {
        let server = once("PUT", SESSIONS, move |_| answer(status, &[], "")).await;
        let image = images::image(&["a"]);
        let blob = Arc::clone(&image.blobs[0]);
        open(&server).put_blob(&blob, &[]).await.unwrap();
        assert_eq!(server.count("PUT", SESSIONS), 1, "{status}");
    }
    // Taken, but not as a blob.
    let server = always("PUT", SESSIONS, |_| answer(202, &[], "")).await;
    let failure = push_one(&server).await.unwrap_err();
    assert!(
        matches!(failure, RegistryError::Unexpected { status: 202, .. }),
        "{failure:?}"
    );
}

#[tokio::test]
async fn an_upload_that_was_kept_as_something_else_is_noticed() {
    let other = Sha256Digest::of(b"other").to_string();
    let server = once("PUT", SESSIONS, move |_| {
        answer(201, &[("docker-content-digest", &other)], "")
    })
    .await;
    let failure = push_one(&server).await.unwrap_err();
    assert!(
        matches!(failure, RegistryError::Damaged { .. }),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_session_may_be_anywhere_and_only_the_registry_gets_the_password() {
    let storage =
        StrictRegistry::start_with(|request| request.is("PUT", "/").then(|| answer(201, &[], "")))
            .await;
    let elsewhere = format!("http://{}/upload?signature=x%2By", storage.address());
    let server = StrictRegistry::start_with(move |request| {
        if request.header("authorization").is_none() {
            let challenge = ("www-authenticate", r#"Basic realm="test""#);
            return Some(answer(401, &[challenge], ""));
        }
        (request.is("POST", UPLOADS)).then(|| answer(202, &[("location", &elsewhere)], ""))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json");
    let login = serde_json::json!({"username": "deployer", "password": "s3cret"});
    let json = serde_json::json!({"auths": {server.address(): login}});
    std::fs::write(&config, json.to_string()).unwrap();
    let registry = open::repository(&server.repository(), vec![config]);
    let blob: Arc<dyn BlobSource> = Arc::new(images::blob("a", 10));
    registry.put_blob(&blob, &[]).await.unwrap();
    let sent = storage.received();
    assert_eq!(sent[0].header("authorization"), None);
    let digest = blob.descriptor().digest.to_string().replace(':', "%3A");
    assert_eq!(
        sent[0].raw_query,
        format!("signature=x%2By&digest={digest}")
    );
}

#[tokio::test]
async fn a_session_without_a_usable_address_is_an_error_and_no_end_of_the_program() {
    for headers in [
        vec![],
        vec![("location", "http://[")],
        vec![("location", "ftp://registry.test/x")],
    ] {
        let shown = format!("{headers:?}");
        let server = always("POST", UPLOADS, move |_| answer(202, &headers, "")).await;
        let failure = push_one(&server).await.unwrap_err();
        assert!(
            matches!(failure, RegistryError::Malformed { .. }),
            "{shown}: {failure:?}"
        );
    }
}

#[tokio::test]
async fn a_refused_mount_without_a_session_is_followed_by_one() {
    let server = StrictRegistry::start_with(|request| {
        (request.query.contains_key("mount")).then(|| answer(202, &[], ""))
    })
    .await;
    assert_eq!(push_one(&server).await.unwrap().uploaded.len(), 2);
    assert_eq!(server.count("POST", UPLOADS), 4);
    assert_eq!(server.open_sessions(), 0);
}

#[tokio::test]
async fn a_manifest_is_written_whatever_the_registry_says_about_it() {
    let digest = images::image(&["a"]).manifest.descriptor.digest.to_string();
    for (status, headers) in [
        (200, vec![]),
        (201, vec![]),
        (
            201,
            vec![("location", "/v2/project/manifests/1".to_owned())],
        ),
        (201, vec![("docker-content-digest", digest.clone())]),
        // One registry states no digest but a word.
        (201, vec![("docker-content-digest", "none".to_owned())]),
        (204, vec![]),
    ] {
        let server = always("PUT", MANIFESTS, move |_| {
            let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            answer(status, &headers, "")
        })
        .await;
        assert!(
            push_one(&server).await.unwrap().manifest_written,
            "{status}"
        );
        assert_eq!(server.count("PUT", MANIFESTS), 1);
    }
}

#[tokio::test]
async fn blobs_that_stay_unknown_end_in_an_error_after_one_full_pass() {
    for code in ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"] {
        let server = always("PUT", MANIFESTS, move |_| error(404, code)).await;
        let failure = push_one(&server).await.unwrap_err();
        assert!(
            matches!(failure, RegistryError::BlobsMissing { .. }),
            "{failure:?}"
        );
        assert_eq!(server.count("PUT", MANIFESTS), 2);
        assert_eq!(server.count("HEAD", BLOBS), 2);
        assert_eq!(server.count("PUT", SESSIONS), 2);
    }
}

#[tokio::test]
async fn a_full_pass_in_which_questions_are_refused_sends_everything() {
    for status in [403, 405] {
        let mut complained = false;
        let server = StrictRegistry::start_with(move |request| {
            if request.is("HEAD", BLOBS) {
                return Some(error(status, "DENIED"));
            }
            if request.is("PUT", MANIFESTS) && !complained {
                complained = true;
                return Some(error(400, "MANIFEST_BLOB_UNKNOWN"));
            }
            None
        })
        .await;
        push_one(&server).await.unwrap();
        assert_eq!(server.count("PUT", SESSIONS), 4, "{status}");
    }
}

#[tokio::test]
async fn what_may_be_asked_for_only_with_get_is_asked_for_with_get() {
    let server = always("HEAD", MANIFESTS, |_| answer(405, &[], "")).await;
    push_one(&server).await.unwrap();
    let name = ManifestName::Tag(tag());
    let found = open(&server).manifest_descriptor(&name).await.unwrap();
    assert_eq!(found, Some(images::image(&["a"]).manifest.descriptor));
    let absent = ManifestName::Tag("2".parse().unwrap());
    assert_eq!(
        open(&server).manifest_descriptor(&absent).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_registry_that_stays_busy_is_told_of_by_its_status() {
    for status in [408, 429, 500, 502, 503, 504] {
        for (method, path) in [("HEAD", MANIFESTS), ("POST", UPLOADS), ("PUT", MANIFESTS)] {
            let server = always(method, path, move |_| error(status, "UNAVAILABLE")).await;
            match push_one(&server).await.unwrap_err() {
                RegistryError::Unexpected { status: told, .. } => assert_eq!(told, status),
                other => panic!("{method} {path} {status}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn the_registrys_own_wish_decides_when_to_come_again() {
    let days = Duration::from_secs(1_000_000);
    let http = HttpClient::new(&HttpOptions {
        retry: RetryPolicy {
            attempts: 2,
            base_delay: days,
            max_delay: days,
        },
        ..HttpOptions::default()
    })
    .unwrap();
    for (method, path) in [
        ("HEAD", MANIFESTS),
        ("POST", UPLOADS),
        ("PUT", SESSIONS),
        ("PUT", MANIFESTS),
    ] {
        let server = once(method, path, |_| {
            answer(429, &[("retry-after", "12.5ms")], "")
        })
        .await;
        let options = OpenOptions::default();
        let registry =
            open::try_repository(&server.repository(), &http, Vec::new(), &options).unwrap();
        // Without it the second attempt would come in a week.
        push(&*registry, &images::image(&["a"]), &[tag()], None, &Silent)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn redirects_are_followed_with_method_and_body() {
    for status in [307, 308] {
        for (method, path) in [("HEAD", MANIFESTS), ("POST", UPLOADS), ("PUT", MANIFESTS)] {
            let server = once(method, path, move |request| {
                let target = match request.raw_query.as_str() {
                    "" => request.path.clone(),
                    query => format!("{}?{query}", request.path),
                };
                answer(status, &[("location", &target)], "")
            })
            .await;
            push_one(&server).await.unwrap();
            let digest = ManifestName::Digest(images::image(&["a"]).manifest.descriptor.digest);
            assert!(open(&server).manifest(&digest).await.unwrap().is_some());
        }
    }
}

async fn read(server: &StrictRegistry, descriptor: &Descriptor) -> Result<Vec<u8>, String> {
    let reader = open(server).blob(descriptor).await;
    let mut reader = reader.map_err(|error| error.to_string())?;
    tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let read = reader.read_to_end(&mut bytes);
        read.map(|_| bytes).map_err(|error| error.to_string())
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_blob_is_read_or_its_absence_is_an_error() {
    let blob = images::blob("layer", 5);
    let descriptor = blob.descriptor();
    for (status, code) in [
        (404, "BLOB_UNKNOWN"),
        (403, "DENIED"),
        (410, "X"),
        (416, "X"),
    ] {
        let server = always("GET", BLOBS, move |_| error(status, code)).await;
        let failure = read(&server, descriptor).await.unwrap_err();
        assert!(!failure.is_empty());
        assert_eq!(server.count("GET", BLOBS), 1, "{status}");
    }
    for status in [408, 429, 500, 503] {
        let server = once("GET", BLOBS, move |_| error(status, "X")).await;
        server.put_blob(&descriptor.digest, "layer".into());
        assert_eq!(read(&server, descriptor).await.unwrap(), b"layer");
    }
}

/// A registry that wants a token, which this answer gives or does not.
async fn with_token_answer(
    reply: impl Fn(&Received, usize) -> Reply + Send + 'static,
) -> StrictRegistry {
    let mut asked = 0;
    StrictRegistry::start_with(move |request| {
        if request.path == "/token" {
            asked += 1;
            return Some(reply(request, asked));
        }
        if request.header("authorization") == Some("Bearer s3cret-token") {
            return None;
        }
        let host = request.header("host").unwrap();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="test""#);
        Some(answer(401, &[("www-authenticate", &challenge)], ""))
    })
    .await
}

#[tokio::test]
async fn every_form_of_a_token_is_taken() {
    for body in [
        r#"{"token":"s3cret-token"}"#,
        r#"{"access_token":"s3cret-token","expires_in":300}"#,
        r#"{"token":"s3cret-token","access_token":"s3cret-token","expires_in":3600,"issued_at":"x"}"#,
        r#"{"token":"","access_token":"s3cret-token"}"#,
        r#"{"token":"s3cret-token","expires_in":null}"#,
    ] {
        let server = with_token_answer(move |_, _| answer(200, &[], body)).await;
        push_one(&server)
            .await
            .unwrap_or_else(|error| panic!("{body}: {error}"));
    }
    // A token server that is busy is asked again.
    let server = with_token_answer(|_, asked| match asked {
        1 => answer(503, &[], ""),
        2 => Reply::Break,
        _ => answer(200, &[], r#"{"token":"s3cret-token"}"#),
    })
    .await;
    push_one(&server).await.unwrap();
}

#[tokio::test]
async fn what_is_no_token_is_told_and_never_shown() {
    for (status, body) in [
        (200, r#"{"token":"s3cret-token""#),
        (200, r#"["s3cret-token"]"#),
        (200, r#"{"tokens":"s3cret-token"}"#),
        (200, "s3cret-token"),
        (401, ""),
        (403, ""),
        (404, ""),
        (500, ""),
    ] {
        let server = with_token_answer(move |_, _| answer(status, &[], body)).await;
        let failure = push_one(&server).await.unwrap_err();
        let text = format!("{failure} {failure:?}");
        assert!(!text.contains("s3cret"), "{text}");
        match failure {
            RegistryError::Denied { identity, .. } => {
                assert!(matches!(status, 401 | 403), "{text}");
                assert!(identity.contains("nobody"), "{identity}");
            }
            RegistryError::Unexpected { status: told, .. } => assert_eq!(told, status),
            RegistryError::Malformed { .. } => assert_eq!(status, 200, "{text}"),
            other => panic!("{status}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_challenge_that_leads_nowhere_is_an_error() {
    for challenge in [
        r#"Bearer realm="not an address""#,
        r#"Bearer service="x""#,
        "Negotiate",
        "",
    ] {
        let server = StrictRegistry::start_with(move |_| {
            Some(answer(401, &[("www-authenticate", challenge)], ""))
        })
        .await;
        let failure = push_one(&server).await.unwrap_err();
        let named = matches!(
            failure,
            RegistryError::Denied { .. } | RegistryError::Malformed { .. }
        );
        assert!(named, "{challenge}: {failure:?}");
    }
}
