//! A real registry that believes only the tokens of a token server (of the tests' own).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/certificates.rs"]
#[allow(dead_code)]
mod certificates;
#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/images.rs"]
#[allow(dead_code)]
mod images;
#[path = "support/open.rs"]
#[allow(dead_code)]
mod open;
#[path = "support/strict_registry.rs"]
#[allow(dead_code)]
mod strict_registry;

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use certificates::Authority;
use docker_registry::DockerRegistry;
use forebay::oci::Tag;
use forebay::progress::Silent;
use forebay::registry::{RegistryError, push};
use serde_json::{Value, json};
use strict_registry::{Received, StrictRegistry, answer, error};

/// A token as the registry's documentation ("Token Authentication") describes it.
fn token(signer: &Path, access: &Value) -> String {
    let pem = std::fs::read_to_string(signer.with_extension("crt")).unwrap();
    let certificate: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(STANDARD.decode(&certificate).is_ok());
    let encode = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let head = encode(json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]}));
    let claims = encode(json!({
        "iss": "tests", "sub": "deployer", "aud": "registry", "jti": "1",
        "iat": 1_600_000_000_u64, "nbf": 1_600_000_000_u64, "exp": 4_000_000_000_u64,
        "access": access,
    }));
    let signed = format!("{head}.{claims}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("signed");
    std::fs::write(&file, &signed).unwrap();
    let output = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(signer.with_extension("key"))
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(output.stdout))
}

/// What the user may do: everything in `team/`, and nothing elsewhere.
fn granted(request: &Received) -> Value {
    let scopes = request
        .raw_query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("scope="));
    let access = scopes.filter_map(|scope| {
        let scope = scope
            .replace("%3A", ":")
            .replace("%2C", ",")
            .replace("%2F", "/");
        let [kind, name, actions] = scope.splitn(3, ':').collect::<Vec<_>>().try_into().unwrap();
        let actions: Vec<_> = actions.split(',').collect();
        name.starts_with("team/")
            .then(|| json!({"type": kind, "name": name, "actions": actions}))
    });
    access.collect()
}

async fn token_server(signer: PathBuf) -> StrictRegistry {
    StrictRegistry::start_with(move |request| {
        assert!(request.is("GET", "/token"));
        assert_eq!(
            request.query.get("service").map(String::as_str),
            Some("registry")
        );
        let expected = format!("Basic {}", STANDARD.encode("deployer:s3cret"));
        if request.header("authorization") != Some(&expected) {
            return Some(error(401, "UNAUTHORIZED"));
        }
        let body = json!({"token": token(&signer, &granted(request)), "expires_in": 300});
        Some(answer(200, &[], body.to_string()))
    })
    .await
}

#[tokio::test]
async fn tokens_are_asked_for_once_for_each_scope() {
    let authority = Authority::new();
    let signer = authority.sign("signer", "DNS:token.test", "2");
    let tokens = token_server(signer.clone()).await;
    let auth = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: registry\n    issuer: tests\n    rootcertbundle: {}\n",
        tokens.address(),
        authority.certificate().display()
    );
    let Some(server) = DockerRegistry::start_with(&auth) else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let config = |password: &str| {
        let file = home.path().join(format!("{}.json", password.len()));
        let login = json!({"username": "deployer", "password": password});
        let json = json!({"auths": {server.address(): login}});
        std::fs::write(&file, json.to_string()).unwrap();
        vec![file]
    };
    let name = |name: &str| format!("{}/{name}", server.address());
    let tag: Tag = "1".parse().unwrap();

    let staging = open::repository(&name("team/staging"), config("s3cret"));
    let mut image = images::image(&["a", "b", "c"]);
    push(&*staging, &image, std::slice::from_ref(&tag), None, &Silent)
        .await
        .unwrap();
    assert_eq!(tokens.received().len(), 1);
    // One refusal, by which the registry says where tokens are to be had.
    let refused = server
        .requests()
        .iter()
        .filter(|r| r.ends_with("401"))
        .count();
    assert_eq!(refused, 1, "{:#?}", server.requests());

    // A promotion: the token for mounts covers the source too.
    image.mount_candidates = vec![staging.repository().clone()];
    let production = open::repository(&name("team/production"), config("s3cret"));
    let report = push(&*production, &image, &[], None, &Silent)
        .await
        .unwrap();
    assert_eq!((report.mounted, report.uploaded.len()), (4, 0));
    assert_eq!(tokens.received().len(), 3);

    for (repository, password, expected) in [
        ("elsewhere/project", "s3cret", "deployer (from"),
        ("team/project", "hunter2", "deployer (from"),
    ] {
        let registry = open::repository(&name(repository), config(password));
        let refusal = push(&*registry, &image, &[], None, &Silent)
            .await
            .unwrap_err();
        let text = format!("{refusal} {refusal:?}");
        assert!(matches!(refusal, RegistryError::Denied { .. }), "{text}");
        assert!(
            text.contains(expected) && text.contains(repository),
            "{text}"
        );
        assert!(!text.contains(password), "{text}");
    }
}
