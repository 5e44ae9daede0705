//! What a person reads when a login is refused, and that no secret is shown, kept or handed
//! to another program's command line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[path = "support/certificates.rs"]
#[allow(dead_code)]
mod certificates;
#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/http_proxy.rs"]
#[allow(dead_code)]
mod http_proxy;
#[path = "support/small_project.rs"]
mod small_project;
#[path = "support/strict_registry.rs"]
#[allow(dead_code)]
mod strict_registry;

use certificates::Authority;
use docker_registry::DockerRegistry;
use forebay_support::Machine;
use http_proxy::HttpProxy;
use small_project::small_project;
use strict_registry::{StrictRegistry, answer};

/// Stands for Google Cloud Storage behind a proxy: it refuses everything, in Google's words.
fn refusing_storage(authority: &Authority) -> String {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = authority.sign("storage", "DNS:storage.googleapis.com", "2");
    let certificate = CertificateDer::from_pem_file(server.with_extension("crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(server.with_extension("key")).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let body = r#"{"error":{"code":403,"message":"Permission denied on resource (or it may not exist)."}}"#;
            let _ = write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_principal_permission_resource_and_source() {
    let authority = Authority::new();
    let hosts = [(
        "storage.googleapis.com:443".to_owned(),
        refusing_storage(&authority),
    )];
    let proxy = HttpProxy::start(BTreeMap::from(hosts)).await;
    let tokens = StrictRegistry::start_with(|request| {
        let token = r#"{"access_token": "ya29.s3cret", "expires_in": 3600}"#;
        let json = ("content-type", "application/json");
        request
            .is("POST", "/token")
            .then(|| answer(200, &[json], token))
    })
    .await;
    let project = tempfile::tempdir().unwrap();
    small_project(project.path());
    let key = project.path().join("deployer-key.json");
    let private = authority
        .sign("deployer", "DNS:deployer.test", "2")
        .with_extension("key");
    let private = std::fs::read_to_string(private).unwrap();
    let json = serde_json::json!({
        "type": "service_account", "project_id": "p", "private_key_id": "1",
        "client_email": "deployer@p.iam.gserviceaccount.com", "private_key": private,
        "token_uri": format!("http://{}/token", tokens.address()),
    });
    std::fs::write(&key, json.to_string()).unwrap();

    let mut machine = Machine::new();
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "https_proxy",
        "NO_PROXY",
        "no_proxy",
        "SSL_CERT_FILE",
    ] {
        machine = machine.without_variable(name);
    }
    let machine = machine
        .with_variable("HTTPS_PROXY", &format!("http://{}", proxy.address()))
        .with_variable("SSL_CERT_FILE", authority.certificate().to_str().unwrap())
        .with_variable("GOOGLE_APPLICATION_CREDENTIALS", key.to_str().unwrap())
        .with_variable("RUST_LOG", "trace");
    let directory = project.path().to_owned();
    let finished = tokio::task::spawn_blocking(move || {
        machine.forebay(
            &directory,
            [
                "status",
                "-c",
                "dev",
                "-r",
                "oci:images",
                "-b",
                "gs://composer",
            ],
        )
    })
    .await
    .unwrap();
    assert_eq!(finished.status, 4, "{}", finished.stderr);
    for expected in [
        "deployer@p.iam.gserviceaccount.com",
        "storage.objects.",
        "gs://composer",
        "deployer-key.json",
    ] {
        assert!(
            finished.stderr.contains(expected),
            "{expected}: {}",
            finished.stderr
        );
    }
    let all = finished.stdout + &finished.stderr;
    assert!(!all.contains("ya29") && !all.contains("BEGIN"), "{all}");
}

/// Everything under a folder that holds the text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .filter(|entry| {
            let bytes = std::fs::read(entry.path()).unwrap();
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        })
        .map(|entry| entry.path().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_neither_shown_nor_kept_nor_handed_on() {
    let place = tempfile::tempdir().unwrap();
    let passwords = place.path().join("htpasswd");
    // bcrypt of "s3cret", which is not what the helper says.
    let line = "deployer:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";
    std::fs::write(&passwords, line).unwrap();
    let auth = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        passwords.display()
    );
    let Some(registry) = DockerRegistry::start_with(&auth) else {
        return;
    };
    let vault = StrictRegistry::start_with(|request| {
        assert_eq!(request.header("x-vault-token"), Some("hunter2-vault"));
        Some(answer(
            200,
            &[],
            r#"{"data":{"token":"hunter2-google","token_ttl":3600}}"#,
        ))
    })
    .await;

    // Every program that the deploy starts writes down what it was told on its command line.
    let programs = place.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let started = place.path().join("started");
    let program = |name: &str, body: &str| {
        let path = programs.join(name);
        let log = started.display();
        std::fs::write(
            &path,
            format!("#!/bin/sh\necho {name} \"$@\" >> '{log}'\n{body}\n"),
        )
        .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    program(
        "docker-credential-test",
        "read -r host; echo '{\"Username\": \"deployer\", \"Secret\": \"hunter2-helper\"}'",
    );
    program("git", "exec /usr/bin/git \"$@\"");
    program("python3", "exec /usr/bin/python3 \"$@\"");
    let docker = place.path().join("docker");
    std::fs::create_dir(&docker).unwrap();
    std::fs::write(docker.join("config.json"), r#"{"credsStore": "test"}"#).unwrap();

    let project = place.path().join("project");
    small_project(&project);
    let store = place.path().join("store");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let machine = Machine::new()
        .with_variable("PATH", &path)
        .with_variable("DOCKER_CONFIG", docker.to_str().unwrap())
        .with_variable("FOREBAY_STORE", store.to_str().unwrap())
        .with_variable("bf_vault_secret", "hunter2-vault")
        .with_variable("bf_env", "dev")
        .with_variable("RUST_LOG", "trace")
        .with_variable("RUST_BACKTRACE", "full");
    let repository = format!("{}/team/small", registry.address());
    let endpoint = format!("http://{}/v1/gcp/token/deployer", vault.address());
    let directory = project.clone();
    let finished = tokio::task::spawn_blocking(move || {
        let arguments = [
            "deploy-image",
            "-a",
            "vault",
            "-ve",
            &endpoint,
            "-r",
            &repository,
            "-b",
            "file://.local",
        ];
        machine.forebay(&directory, arguments)
    })
    .await
    .unwrap();
    assert_eq!(finished.status, 4, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("deployer (from"),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("docker-credential-test"),
        "{}",
        finished.stderr
    );
    let told = std::fs::read_to_string(&started).unwrap();
    assert!(told.contains("docker-credential-test get"), "{told}");
    let shown = finished.stdout + &finished.stderr + &told;
    assert!(!shown.contains("hunter2"), "{shown}");
    for folder in [&store, &project] {
        assert_eq!(holding(folder, "hunter2"), Vec::<PathBuf>::new());
    }
}
