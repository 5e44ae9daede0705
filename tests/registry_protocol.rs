//! Each answer that a registry may give, and what the client makes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/images.rs"]
mod images;
#[path = "support/open.rs"]
mod open;
#[path = "support/strict_registry.rs"]
mod strict_registry;

use std::io::Read as _;
use std::sync::Arc;

use forebay::oci::{BlobSource, Sha256Digest, Tag};
use forebay::progress::Silent;
use forebay::registry::{Access, ManifestName, OpenOptions, PushReport, RegistryError, push};
use images::{blob, image};
use strict_registry::{Received, Reply, StrictRegistry, answer, error};

const BASIC: (&str, &str) = ("www-authenticate", r#"Basic realm="test""#);

fn tag() -> Tag {
    "1".parse().unwrap()
}

fn shared(seed: &str, size: usize) -> Arc<dyn BlobSource> {
    Arc::new(blob(seed, size))
}

async fn push_two_layers(server: &StrictRegistry) -> Result<PushReport, RegistryError> {
    let registry = open::repository(&server.repository(), Vec::new());
    push(&*registry, &image(&["a", "b"]), &[tag()], None, &Silent).await
}

/// A rule that answers the first `times` requests of a kind.
fn first(
    times: usize,
    method: &'static str,
    path_prefix: &'static str,
    reply: impl Fn(&Received) -> Reply + Send,
) -> impl FnMut(&Received) -> Option<Reply> + Send {
    let mut left = times;
    move |request| {
        if left == 0 || !request.is(method, path_prefix) {
            return None;
        }
        left -= 1;
        Some(reply(request))
    }
}

#[tokio::test]
async fn a_refused_mounts_session_is_used() {
    let server = StrictRegistry::start().await;
    let report = push_two_layers(&server).await.unwrap();
    assert_eq!(report.uploaded.len(), 3);
    // One POST for each blob, and every session was used.
    assert_eq!(server.count("POST", "/"), 3);
    assert_eq!(server.open_sessions(), 0);
    assert_eq!(server.blobs(), 3);
}

#[tokio::test]
async fn bodies_have_a_length_and_questions_have_no_body() {
    let server = StrictRegistry::start().await;
    push_two_layers(&server).await.unwrap();
    for request in server.received() {
        let length = request.body.len().to_string();
        let expected = match request.method.as_str() {
            "GET" | "HEAD" => None,
            // Some servers answer 411 to a POST that does not say 0.
            _ => Some(length.as_str()),
        };
        assert_eq!(request.header("content-length"), expected, "{request:?}");
        assert_eq!(request.header("transfer-encoding"), None, "{request:?}");
    }
}

#[tokio::test]
async fn a_mount_that_is_an_error_is_tried_without() {
    for (status, code) in [(401, "UNAUTHORIZED"), (404, "NAME_UNKNOWN"), (400, "X")] {
        let server = StrictRegistry::start_with(move |request| {
            (request.query.contains_key("mount")).then(|| error(status, code))
        })
        .await;
        let report = push_two_layers(&server).await.unwrap();
        assert_eq!(report.uploaded.len(), 3, "{status}");
    }
}

#[tokio::test]
async fn a_second_mount_source_leaves_no_session_open() {
    let server = StrictRegistry::start().await;
    let registry = open::repository(&server.repository(), Vec::new());
    let sources = ["first", "second"].map(|name| format!("{}/{name}", server.address()));
    let sources = sources.map(|source| source.parse().unwrap());
    registry.put_blob(&shared("a", 10), &sources).await.unwrap();
    assert_eq!(server.count("DELETE", "/sessions/"), 1);
    assert_eq!(server.open_sessions(), 0);
}

#[tokio::test]
async fn every_verb_is_repeated() {
    for (method, path) in [
        ("HEAD", "/v2/project/manifests/"),
        ("POST", "/v2/project/blobs/uploads/"),
        ("PUT", "/sessions/"),
        ("PUT", "/v2/project/manifests/"),
    ] {
        for reply in [
            |_: &Received| error(503, "UNAVAILABLE"),
            |_: &Received| answer(429, &[("retry-after", "12.5ms")], ""),
            |_: &Received| answer(499, &[], ""),
            |_: &Received| Reply::Break,
        ] {
            let server = StrictRegistry::start_with(first(2, method, path, reply)).await;
            let report = push_two_layers(&server).await;
            assert_eq!(report.unwrap().uploaded.len(), 3, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_not_sent_again() {
    let small = blob("a", 10);
    let digest = small.descriptor().digest;
    // The bytes arrive, the answer does not.
    let taken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&taken);
    let server = StrictRegistry::start_with(move |request| {
        use std::sync::atomic::Ordering::SeqCst;
        if request.is("PUT", "/sessions/") {
            seen.store(true, SeqCst);
            return Some(Reply::Break);
        }
        (request.is("HEAD", "/v2/project/blobs/") && seen.load(SeqCst))
            .then(|| answer(200, &[], ""))
    })
    .await;
    let registry = open::repository(&server.repository(), Vec::new());
    registry
        .put_blob(&(Arc::new(small) as _), &[])
        .await
        .unwrap();
    assert_eq!(server.count("PUT", "/sessions/"), 1);
    assert!(registry.has_blob(&digest).await.unwrap());
}

#[tokio::test]
async fn a_registry_that_stays_down_is_an_error_that_names_it() {
    let server = StrictRegistry::start_with(|_| Some(Reply::Break)).await;
    let error = push_two_layers(&server).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(server.address()));
    assert_eq!(server.received().len(), 4);

    let server = StrictRegistry::start_with(|_| Some(answer(502, &[], ""))).await;
    let error = push_two_layers(&server).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Unexpected { status: 502, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_login_that_runs_out_in_mid_upload_starts_the_blob_again() {
    let unauthorized = |_: &Received| answer(401, &[BASIC], "");
    let server = StrictRegistry::start_with(first(1, "PUT", "/sessions/", unauthorized)).await;
    let directory = tempfile::tempdir().unwrap();
    let registry = open::repository(&server.repository(), login(&server, &directory));
    let report = push(&*registry, &image(&["a"]), &[tag()], None, &Silent).await;
    assert_eq!(report.unwrap().uploaded.len(), 2);
    assert_eq!(server.blobs(), 2);
}

/// Docker's configuration with a password for the server.
fn login(server: &StrictRegistry, directory: &tempfile::TempDir) -> Vec<std::path::PathBuf> {
    let file = directory.path().join("config.json");
    let json = serde_json::json!({"auths": {
        server.address(): {"username": "deployer", "password": "s3cret"},
    }});
    std::fs::write(&file, json.to_string()).unwrap();
    vec![file]
}

/// Asks for tokens of its own making, which live for `life` seconds and for
/// at most `uses` requests.
async fn with_tokens(life: u64, uses: usize) -> StrictRegistry {
    let mut minted = 0;
    let mut left = 0;
    StrictRegistry::start_with(move |request| {
        if request.path == "/token" {
            minted += 1;
            left = uses;
            let token = serde_json::json!({
                "access_token": format!("token-{minted}"),
                "expires_in": life,
            });
            return Some(answer(200, &[], token.to_string()));
        }
        let current = format!("Bearer token-{minted}");
        if left > 0 && request.header("authorization") == Some(&current) {
            left -= 1;
            return None;
        }
        let host = request.header("host").unwrap();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="the, service""#);
        Some(answer(401, &[("www-authenticate", &challenge)], ""))
    })
    .await
}

#[tokio::test]
async fn one_token_serves_a_whole_push() {
    let server = with_tokens(300, usize::MAX).await;
    let directory = tempfile::tempdir().unwrap();
    let registry = open::repository(&server.repository(), login(&server, &directory));
    push(&*registry, &image(&["a", "b"]), &[tag()], None, &Silent)
        .await
        .unwrap();
    let requests = server.received();
    let tokens: Vec<_> = requests.iter().filter(|r| r.path == "/token").collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].query["scope"], "repository:project:pull,push");
    assert_eq!(tokens[0].query["service"], "the, service");
    // "deployer:s3cret"
    let basic = Some("Basic ZGVwbG95ZXI6czNjcmV0");
    assert_eq!(tokens[0].header("authorization"), basic);
    // Nobody but the token server saw the password.
    let others = requests.iter().filter(|r| r.path != "/token");
    for request in others {
        assert_ne!(request.header("authorization"), basic);
    }
}

#[tokio::test]
async fn tokens_that_end_early_are_renewed_wherever_that_happens() {
    for uses in [2, 3, 4] {
        let server = with_tokens(60, uses).await;
        let registry = open::repository(&server.repository(), Vec::new());
        for layer in ["a", "b", "c"] {
            registry.put_blob(&shared(layer, 1_000), &[]).await.unwrap();
        }
        assert_eq!(server.blobs(), 3, "{uses}");
    }
}

#[tokio::test]
async fn a_mount_source_is_the_second_scope() {
    let server = with_tokens(300, usize::MAX).await;
    let registry = open::repository(&server.repository(), Vec::new());
    let source = format!("{}/base", server.address()).parse().unwrap();
    registry
        .put_blob(&shared("a", 10), &[source])
        .await
        .unwrap();
    let requests = server.received();
    let token = requests.iter().find(|r| r.path == "/token").unwrap();
    let scopes: Vec<_> = url::form_urlencoded::parse(token.raw_query.as_bytes())
        .filter(|(name, _)| name == "scope")
        .map(|(_, scope)| scope.into_owned())
        .collect();
    assert_eq!(
        scopes,
        ["repository:project:pull,push", "repository:base:pull"]
    );
}

#[tokio::test]
async fn reading_asks_for_a_token_to_read_with() {
    let server = with_tokens(300, usize::MAX).await;
    let options = OpenOptions {
        access: Access::Pull,
        ..OpenOptions::default()
    };
    let registry = open::repository_with(&server.repository(), Vec::new(), &options);
    assert!(!registry.has_blob(&Sha256Digest::of(b"x")).await.unwrap());
    let requests = server.received();
    let token = requests.iter().find(|r| r.path == "/token").unwrap();
    assert_eq!(token.query["scope"], "repository:project:pull");
}

#[tokio::test]
async fn a_redirect_to_another_host_goes_without_credentials() {
    let elsewhere = StrictRegistry::start_with(|_| Some(answer(200, &[], "layer"))).await;
    let target = format!("http://{}/storage?signature=x", elsewhere.address());
    let server = StrictRegistry::start_with(move |request| {
        if request.header("authorization").is_none() {
            return Some(answer(401, &[BASIC], ""));
        }
        Some(answer(307, &[("location", &target)], ""))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let registry = open::repository(&server.repository(), login(&server, &directory));
    let layer = blob("layer", 5);
    let mut reader = registry.blob(layer.descriptor()).await.unwrap();
    let bytes = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    assert_eq!(bytes.await.unwrap().unwrap(), b"layer");
    let request = &elsewhere.received()[0];
    assert_eq!(request.header("authorization"), None);
    assert_eq!(request.raw_query, "signature=x");
}

#[tokio::test]
async fn a_redirect_without_end_is_an_error() {
    let again = |_: &Received| Some(answer(302, &[("location", "/again")], ""));
    let server = StrictRegistry::start_with(again).await;
    let registry = open::repository(&server.repository(), Vec::new());
    let error = registry
        .has_blob(&Sha256Digest::of(b"x"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::Malformed { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn blobs_that_were_wrongly_believed_are_sent_in_a_full_pass() {
    let image = image(&["a", "b"]);
    let previous = images::image(&["a", "z"]);
    let server = StrictRegistry::start().await;
    // A manifest without its blobs: somebody's cleaning took them.
    let digest = previous.manifest.descriptor.digest;
    server.put_manifest(
        &digest.to_string(),
        previous.manifest.descriptor.media_type.as_str(),
        previous.manifest.bytes.clone(),
    );
    let registry = open::repository(&server.repository(), Vec::new());
    let report = push(&*registry, &image, &[tag()], Some(&digest), &Silent)
        .await
        .unwrap();
    assert_eq!((report.uploaded.len(), report.present), (3, 2));
    assert_eq!(server.blobs(), 3);
    assert_eq!(server.count("PUT", "/v2/project/manifests/"), 2);
}

#[tokio::test]
async fn a_mount_that_lies_ends_in_a_full_pass() {
    let server = StrictRegistry::start_with(|request| {
        (request.query.contains_key("mount")).then(|| answer(201, &[], ""))
    })
    .await;
    let report = push_two_layers(&server).await.unwrap();
    assert_eq!(report.uploaded.len(), 3);
}

#[tokio::test]
async fn a_page_of_html_is_not_shown() {
    let page = "<html><script>alert(1)</script> \u{1b}[2J Bad gateway</html>";
    let reply = move |_: &Received| Some(answer(418, &[("content-type", "text/html")], page));
    let server = StrictRegistry::start_with(reply).await;
    let registry = open::repository(&server.repository(), Vec::new());
    let name = ManifestName::Tag(tag());
    let text = registry.manifest(&name).await.unwrap_err().to_string();
    assert_eq!(
        text,
        "the registry answered 418 to GET /v2/project/manifests/1"
    );
}

#[tokio::test]
async fn a_refusal_is_never_absence() {
    for status in [401, 403, 405, 451] {
        let server = StrictRegistry::start_with(move |_| Some(error(status, "DENIED"))).await;
        let registry = open::repository(&server.repository(), Vec::new());
        let digest = Sha256Digest::of(b"x");
        let name = ManifestName::Digest(digest);
        assert!(registry.has_blob(&digest).await.is_err(), "{status}");
        assert!(registry.manifest(&name).await.is_err(), "{status}");
        assert!(
            registry.manifest_descriptor(&name).await.is_err(),
            "{status}"
        );
        assert!(push_two_layers(&server).await.is_err(), "{status}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_the_registry_said() {
    let body = r#"{"errors":[{"code":"DENIED","message":"Permission \"artifactregistry.repositories.uploadArtifacts\" denied"}]}"#;
    let server = StrictRegistry::start_with(move |request| {
        (request.method == "POST").then(|| answer(403, &[], body))
    })
    .await;
    let text = push_two_layers(&server).await.unwrap_err().to_string();
    assert!(text.contains("does not allow push"), "{text}");
    assert!(text.contains("uploadArtifacts"), "{text}");
}

#[tokio::test]
async fn wrong_manifests_are_not_believed() {
    let image = image(&["a"]);
    let digest = image.manifest.descriptor.digest;
    let media_type = image.manifest.descriptor.media_type.as_str();
    let server = StrictRegistry::start().await;
    server.put_manifest(&digest.to_string(), media_type, "{}".into());
    let registry = open::repository(&server.repository(), Vec::new());
    let read = registry.manifest(&ManifestName::Digest(digest)).await;
    assert!(
        matches!(read, Err(RegistryError::Damaged { .. })),
        "{read:?}"
    );

    let media_type = media_type.to_owned();
    let bytes = image.manifest.bytes.clone();
    let other = Sha256Digest::of(b"other").to_string();
    let server = StrictRegistry::start_with(move |request| {
        let headers = [
            ("content-type", media_type.as_str()),
            ("docker-content-digest", other.as_str()),
        ];
        let path = request.path.contains("/manifests/");
        path.then(|| {
            answer(
                if request.method == "PUT" { 201 } else { 200 },
                &headers,
                bytes.clone(),
            )
        })
    })
    .await;
    let registry = open::repository(&server.repository(), Vec::new());
    for name in [ManifestName::Digest(digest), ManifestName::Tag(tag())] {
        let read = registry.manifest(&name).await;
        assert!(
            matches!(read, Err(RegistryError::Damaged { .. })),
            "{read:?}"
        );
    }
    let described = registry
        .manifest_descriptor(&ManifestName::Digest(digest))
        .await;
    assert!(matches!(described, Err(RegistryError::Damaged { .. })));
    let written = registry
        .put_manifest(
            &ManifestName::Tag(tag()),
            &image.manifest.descriptor.media_type,
            image.manifest.bytes.clone(),
        )
        .await;
    assert!(matches!(written, Err(RegistryError::Damaged { .. })));
}

#[tokio::test]
async fn a_wrong_blob_is_noticed_at_its_end() {
    let layer = blob("layer", 5);
    for served in ["Layer", "lay", "layers"] {
        let server = StrictRegistry::start().await;
        server.put_blob(&layer.descriptor().digest, served.into());
        let registry = open::repository(&server.repository(), Vec::new());
        let mut reader = registry.blob(layer.descriptor()).await.unwrap();
        let read = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
        let error = read.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{served}");
    }
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    use std::io::{BufRead as _, BufReader, Write as _};
    // Says ten bytes, sends four, and gives the rest to whoever asks for it;
    // or gives everything again, as servers without ranges do.
    for second in [
        "HTTP/1.1 206 Partial Content\r\ncontent-length: 6\r\ncontent-range: bytes 4-9/10\r\n\r\n456789",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789",
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("{}/project", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let first = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123";
            let mut ranges = Vec::new();
            for answer in [first, second] {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head = lines
                    .map(Result::unwrap)
                    .take_while(|line| !line.is_empty());
                ranges.extend(head.filter(|line| line.starts_with("range:")));
                stream.write_all(answer.as_bytes()).unwrap();
            }
            ranges
        });
        let registry = open::repository(&name, Vec::new());
        let layer = blob("0123456789", 10);
        let mut reader = registry.blob(layer.descriptor()).await.unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        assert_eq!(read.await.unwrap().unwrap(), b"0123456789");
        assert_eq!(server.join().unwrap(), ["range: bytes=4-"]);
    }
}

#[tokio::test]
async fn a_tag_without_a_stated_digest_is_read_and_hashed() {
    let server = StrictRegistry::start().await;
    push_two_layers(&server).await.unwrap();
    let registry = open::repository(&server.repository(), Vec::new());
    let name = ManifestName::Tag(tag());
    let described = registry.manifest_descriptor(&name).await.unwrap().unwrap();
    assert_eq!(described, image(&["a", "b"]).manifest.descriptor);
}

#[tokio::test]
async fn a_repository_that_does_not_exist_is_named() {
    let server = StrictRegistry::start().await;
    let name = format!("{}/missing", server.address());
    let registry = open::repository(&name, Vec::new());
    let pushed = push(&*registry, &image(&["a"]), &[tag()], None, &Silent).await;
    match pushed {
        Err(RegistryError::NoRepository { repository }) => assert_eq!(repository, name),
        other => panic!("{other:?}"),
    }
}
