//! Vault as its users know it, against a real server: policies, logins, ends of
//! tokens, namespaces, certificates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/open.rs"]
#[allow(dead_code)]
mod open;
#[path = "support/openbao.rs"]
mod openbao;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forebay::credentials::{
    AuthMethod, CredentialError, Secret, TokenSource, VaultOptions, VaultSettings, token_source,
};
use openbao::OpenBao;
use serde_json::json;

const PATH: &str = "gcp/token/deployer";

/// What a process with these variables uses; the endpoint is a path under `VAULT_ADDR`.
fn source_with(
    options: VaultOptions,
    server: &OpenBao,
    variables: &[(&str, &str)],
) -> Result<Arc<dyn TokenSource>, CredentialError> {
    let options = VaultOptions {
        endpoint: options.endpoint.or(Some(PATH.to_owned())),
        ..options
    };
    let settings = VaultSettings::resolve(options, &|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        match name {
            "VAULT_ADDR" => Some(server.address().to_owned()),
            _ => found.map(|(_, value)| (*value).to_owned()),
        }
    })?;
    token_source(&AuthMethod::Vault(Box::new(settings)), &open::http())
}

fn source(server: &OpenBao, variables: &[(&str, &str)]) -> Arc<dyn TokenSource> {
    source_with(VaultOptions::default(), server, variables).unwrap()
}

async fn token(source: &Arc<dyn TokenSource>) -> String {
    source.token().await.unwrap().unwrap().reveal().to_owned()
}

async fn refusal(source: &Arc<dyn TokenSource>) -> String {
    let error = source.token().await.unwrap_err();
    let text = format!("{error}");
    assert!(!format!("{error:?}").contains("s."), "{error:?}");
    text
}

#[tokio::test]
async fn a_token_with_the_right_policy_reads_and_others_are_told_why_not() {
    let Some(server) = OpenBao::start() else {
        return;
    };
    server
        .put_token("token/deployer", json!({"token": "ya29.real"}))
        .await;
    let allowed = server.token(json!({"policies": ["deploy"]})).await;
    assert_eq!(
        token(&source(&server, &[("VAULT_TOKEN", &allowed)])).await,
        "ya29.real"
    );

    // BigFlow's way: the full address, and the secret in the configuration.
    let bigflow = VaultOptions {
        endpoint: Some(format!("{}/v1/{PATH}", server.address())),
        configured_secret: Some(Secret::new(&*allowed)),
        ..VaultOptions::default()
    };
    assert_eq!(
        token(&source_with(bigflow, &server, &[]).unwrap()).await,
        "ya29.real"
    );

    // `vault login` leaves its token in a file.
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join(".vault-token"), format!("{allowed}\n")).unwrap();
    let from_file = source(&server, &[("HOME", home.path().to_str().unwrap())]);
    assert_eq!(token(&from_file).await, "ya29.real");

    let stranger = server.token(json!({"display_name": "stranger"})).await;
    let unentitled = server
        .token(json!({"policies": ["default"], "display_name": "stranger", "no_parent": true}))
        .await;
    assert_eq!(
        token(&source(&server, &[("VAULT_TOKEN", &stranger)])).await,
        "ya29.real"
    );
    let text = refusal(&source(&server, &[("VAULT_TOKEN", &unentitled)])).await;
    for part in [
        server.address(),
        "token-stranger",
        "VAULT_TOKEN",
        "`read`",
        PATH,
        "default",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = refusal(&source(&server, &[("VAULT_TOKEN", "s.wrong")])).await;
    assert!(
        text.contains("VAULT_TOKEN is wrong, has run out or was revoked"),
        "{text}"
    );
    let elsewhere = VaultOptions {
        endpoint: Some("gcp/token/nobody".to_owned()),
        ..VaultOptions::default()
    };
    let elsewhere = source_with(elsewhere, &server, &[("VAULT_TOKEN", &allowed)]).unwrap();
    assert!(
        refusal(&elsewhere)
            .await
            .contains("nothing is at this path")
    );
}

#[tokio::test]
async fn expired_and_revoked_tokens_are_told() {
    let Some(server) = OpenBao::start() else {
        return;
    };
    let spent = json!({"token": "ya29.real", "token_ttl": 0});
    server.put_token("token/deployer", spent).await;
    for how in ["revoked", "expired"] {
        let ttl = if how == "expired" { "2s" } else { "1h" };
        let properties = json!({"policies": ["deploy"], "ttl": ttl, "explicit_max_ttl": ttl});
        let vault_token = server.token(properties).await;
        let source = source(&server, &[("VAULT_TOKEN", &vault_token)]);
        assert_eq!(token(&source).await, "ya29.real");
        if how == "revoked" {
            let body = json!({"token": vault_token});
            server.post("auth/token/revoke", body).await;
        }
        // The server itself says when it has run out.
        let text = loop {
            match source.token().await {
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                Err(error) => break error.to_string(),
            }
        };
        assert!(text.contains("has run out or was revoked"), "{how}: {text}");
        assert!(!text.contains(&vault_token), "{text}");
    }
}

#[tokio::test]
async fn an_approle_logs_in_and_again_when_its_token_ends() {
    let Some(server) = OpenBao::start() else {
        return;
    };
    // Read anew for every use.
    let short_lived = json!({"token": "ya29.real", "token_ttl": 0});
    server.put_token("token/deployer", short_lived).await;
    server.post("sys/auth/ci", json!({"type": "approle"})).await;
    let role = json!({"token_policies": ["deploy"], "token_ttl": "1h"});
    server.post("auth/ci/role/deployer", role).await;
    server
        .post(
            "auth/ci/role/deployer/role-id",
            json!({"role_id": "deployer-id"}),
        )
        .await;
    let answer = server
        .post("auth/ci/role/deployer/secret-id", json!({}))
        .await;
    let secret_id = answer["data"]["secret_id"].as_str().unwrap();

    let variables = [
        ("VAULT_ROLE_ID", "deployer-id"),
        ("VAULT_SECRET_ID", secret_id),
        ("VAULT_AUTH_MOUNT", "ci"),
    ];
    let deploy = source(&server, &variables);
    assert_eq!(token(&deploy).await, "ya29.real");
    assert_eq!(token(&deploy).await, "ya29.real");
    // Somebody revokes what our login gave, in the middle of a deploy.
    server
        .post("sys/leases/revoke-prefix/auth/ci/login", json!({}))
        .await;
    assert_eq!(token(&deploy).await, "ya29.real");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret-id");
    std::fs::write(&file, secret_id).unwrap();
    let flags = VaultOptions {
        role_id: Some("deployer-id".to_owned()),
        secret_id_file: Some(file),
        auth_mount: Some("ci".to_owned()),
        ..VaultOptions::default()
    };
    assert_eq!(
        token(&source_with(flags, &server, &[]).unwrap()).await,
        "ya29.real"
    );

    for (name, value, expected) in [
        (
            "VAULT_SECRET_ID",
            "hunter2",
            "refused the login at auth/ci/login",
        ),
        ("VAULT_AUTH_MOUNT", "elsewhere", "auth/elsewhere/login"),
    ] {
        let mut wrong = variables;
        wrong
            .iter_mut()
            .find(|(known, _)| *known == name)
            .unwrap()
            .1 = value;
        let text = refusal(&source(&server, &wrong)).await;
        assert!(
            text.contains(expected) && !text.contains("hunter2"),
            "{text}"
        );
    }
}

/// A JSON web token for `deployer`, signed with a new key; and the key's public half.
fn web_token(directory: &Path) -> (String, String) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    openssl(&["genrsa", "-out", "key.pem", "2048"]);
    let public = openssl(&["rsa", "-in", "key.pem", "-pubout"]);
    let encode = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let head = encode(json!({"alg": "RS256", "typ": "JWT"}));
    let claims = encode(json!({
        "iss": "https://ci.test", "sub": "deployer", "aud": "vault", "nbf": 1_600_000_000_u64, "iat": 1_600_000_000_u64, "exp": 4_000_000_000_u64,
    }));
    let signed = format!("{head}.{claims}");
    std::fs::write(directory.join("signed"), &signed).unwrap();
    let signature = openssl(&["dgst", "-sha256", "-sign", "key.pem", "signed"]);
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    (token, String::from_utf8(public).unwrap())
}

#[tokio::test]
async fn a_ci_services_web_token_logs_in() {
    let Some(server) = OpenBao::start() else {
        return;
    };
    server
        .put_token("token/deployer", json!({"token": "ya29.real"}))
        .await;
    let directory = tempfile::tempdir().unwrap();
    let (web_token, public) = web_token(directory.path());
    server.post("sys/auth/jwt", json!({"type": "jwt"})).await;
    server
        .post(
            "auth/jwt/config",
            json!({"jwt_validation_pubkeys": [public]}),
        )
        .await;
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"],
        "token_policies": ["deploy"],
    });
    server.post("auth/jwt/role/deployer", role).await;
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{web_token}\n")).unwrap();
    let file = file.to_str().unwrap();

    let variables = [("VAULT_JWT_FILE", file), ("VAULT_ROLE", "deployer")];
    assert_eq!(token(&source(&server, &variables)).await, "ya29.real");
    let unknown = [("VAULT_JWT_FILE", file), ("VAULT_ROLE", "nobody")];
    let text = refusal(&source(&server, &unknown)).await;
    assert!(
        text.contains("auth/jwt/login") && !text.contains(&web_token),
        "{text}"
    );
    let missing = [("VAULT_JWT_FILE", "/nonexistent/jwt")];
    assert!(
        refusal(&source(&server, &missing))
            .await
            .contains("/nonexistent/jwt")
    );
}

#[tokio::test]
async fn a_namespace_is_looked_into() {
    let Some(server) = OpenBao::start() else {
        return;
    };
    server.post("sys/namespaces/team", json!({})).await;
    let engine = json!({"type": "kv", "options": {"version": "1"}});
    server.post_in("team", "sys/mounts/gcp", engine).await;
    server
        .post_in("team", PATH, json!({"token": "ya29.team"}))
        .await;

    let root = ("VAULT_TOKEN", "root");
    let team = source(&server, &[root, ("VAULT_NAMESPACE", "team")]);
    assert_eq!(token(&team).await, "ya29.team");
    let nowhere = source(&server, &[root]);
    assert!(refusal(&nowhere).await.contains("nothing is at this path"));
}

#[tokio::test]
async fn its_own_authority_is_trusted_only_when_it_is_named() {
    let Some(server) = OpenBao::start_tls() else {
        return;
    };
    server
        .put_token("token/deployer", json!({"token": "ya29.real"}))
        .await;
    let authority = server.authority();
    let authority = authority.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(authority, folder.path().join("ca.pem")).unwrap();
    let root = ("VAULT_TOKEN", "root");
    for variable in [
        ("VAULT_CACERT", authority),
        ("VAULT_CAPATH", folder.path().to_str().unwrap()),
        ("VAULT_SKIP_VERIFY", "true"),
    ] {
        assert_eq!(
            token(&source(&server, &[root, variable])).await,
            "ya29.real"
        );
    }
    for verify in [authority, "false"] {
        let flag = VaultOptions {
            verify: Some(verify.to_owned()),
            ..VaultOptions::default()
        };
        let source = source_with(flag, &server, &[root]).unwrap();
        assert_eq!(token(&source).await, "ya29.real");
    }
    let text = refusal(&source(&server, &[root])).await;
    assert!(text.contains("signed by nobody that is trusted"), "{text}");
    let insisting = VaultOptions {
        verify: Some("true".to_owned()),
        ..VaultOptions::default()
    };
    let insisting = source_with(insisting, &server, &[root, ("VAULT_SKIP_VERIFY", "1")]).unwrap();
    assert!(refusal(&insisting).await.contains("signed by nobody"));
}
