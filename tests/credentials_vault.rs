//! Tokens from Vault: each answer that it may give, from a server of the tests' own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/open.rs"]
#[allow(dead_code)]
mod open;
#[path = "support/strict_registry.rs"]
#[allow(dead_code)]
mod strict_registry;

use std::sync::Arc;

use forebay::credentials::{
    AuthMethod, CredentialError, Secret, TokenSource, VaultOptions, VaultSettings, token_source,
};
use strict_registry::{Received, Reply, StrictRegistry, answer};

const PATH: &str = "/v1/gcp/roleset/deployer/token";

fn source(options: VaultOptions) -> Result<Arc<dyn TokenSource>, CredentialError> {
    let settings = VaultSettings::resolve(options, &|_| None)?;
    token_source(&AuthMethod::Vault(Box::new(settings)), &open::http())
}

fn vault(server: &StrictRegistry, secret: &str) -> Arc<dyn TokenSource> {
    source(VaultOptions {
        endpoint: Some(format!("http://{}{PATH}", server.address())),
        secret: Some(Secret::new(secret)),
        ..VaultOptions::default()
    })
    .unwrap()
}

async fn vault_server(reply: impl Fn(usize) -> Reply + Send + 'static) -> StrictRegistry {
    let mut asked = 0;
    StrictRegistry::start_with(move |request: &Received| {
        let lookup = "/v1/auth/token/lookup-self";
        assert!(request.is("GET", PATH) || request.is("GET", lookup));
        if request.header("x-vault-token") != Some("s.right") {
            let body = r#"{"errors":["permission denied"],"token":"s.wrong"}"#;
            return Some(answer(403, &[], body));
        }
        asked += 1;
        Some(reply(asked))
    })
    .await
}

#[tokio::test]
async fn vaults_token_is_read_once_and_again_after_a_refusal() {
    let server = vault_server(|asked| {
        // What old servers answer: no word of the token's life.
        answer(
            200,
            &[],
            format!(r#"{{"data":{{"token":"ya29.{asked}"}}}}"#),
        )
    })
    .await;
    let source = vault(&server, "s.right");
    for _ in 0..2 {
        assert_eq!(source.token().await.unwrap().unwrap().reveal(), "ya29.1");
    }
    source.invalidate().await;
    assert_eq!(source.token().await.unwrap().unwrap().reveal(), "ya29.2");
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn vaults_token_is_read_again_before_it_ends() {
    for data in [
        r#""token_ttl":0"#,
        r#""expires_at_seconds":1600000000"#,
        r#""expires_at_seconds":-5"#,
    ] {
        let server = vault_server(move |asked| {
            answer(
                200,
                &[],
                format!(r#"{{"data":{{"token":"t{asked}",{data}}}}}"#),
            )
        })
        .await;
        let source = vault(&server, "s.right");
        for expected in ["t1", "t2"] {
            assert_eq!(source.token().await.unwrap().unwrap().reveal(), expected);
        }
    }
    let server = vault_server(|asked| {
        let body = format!(r#"{{"data":{{"token":"t{asked}","token_ttl":3600}}}}"#);
        answer(200, &[], body)
    })
    .await;
    let source = vault(&server, "s.right");
    for _ in 0..2 {
        assert_eq!(source.token().await.unwrap().unwrap().reveal(), "t1");
    }
}

#[tokio::test]
async fn a_busy_vault_is_asked_again() {
    let server = vault_server(|asked| match asked {
        1 => answer(503, &[], ""),
        2 => Reply::Break,
        _ => answer(200, &[], r#"{"data":{"token":"t"}}"#),
    })
    .await;
    let token = vault(&server, "s.right").token().await;
    assert_eq!(token.unwrap().unwrap().reveal(), "t");
}

#[tokio::test]
async fn vaults_refusal_names_the_place_and_shows_no_secret() {
    let server = vault_server(|_| answer(200, &[], r#"{"auth":{"client_token":"s.leak"}}"#)).await;
    for (secret, expected) in [
        ("s.wrong", "the Vault token of --vault-secret is wrong"),
        ("s.right", "no data.token"),
    ] {
        let source = vault(&server, secret);
        let error = source.token().await.unwrap_err();
        let text = format!("{error} {error:?} {}", source.describe());
        assert!(
            text.contains(&format!("{}{PATH}", server.address())),
            "{text}"
        );
        assert!(text.contains(expected), "{text}");
        assert!(
            !text.contains("s.wrong") && !text.contains("s.leak"),
            "{text}"
        );
    }
}

#[test]
fn a_vault_that_cannot_be_is_refused_at_once() {
    let described = |endpoint: &str, secret: &str, verify: &str| {
        source(VaultOptions {
            endpoint: Some(endpoint.to_owned()),
            secret: Some(Secret::new(secret)),
            verify: Some(verify.to_owned()),
            ..VaultOptions::default()
        })
        .map(|source| source.describe())
    };
    let url = "https://user:password@vault.test/v1/gcp/token/x?secret=y";
    for (endpoint, secret, verify, expected) in [
        ("vault.test", "s", "true", "full address"),
        (url, " ", "true", "--vault-secret"),
        (url, "s", "/nonexistent/ca.pem", "/nonexistent/ca.pem"),
        (url, "s", "", "vault_endpoint_verify"),
    ] {
        match described(endpoint, secret, verify) {
            Err(CredentialError::Misconfigured { problem, .. }) => {
                assert!(problem.contains(expected), "{problem}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        described(url, "s", "false").unwrap(),
        "Vault at https://vault.test/v1/gcp/token/x"
    );
}
