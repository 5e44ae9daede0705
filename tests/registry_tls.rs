//! TLS with an authority of one's own, client certificates, and proxies that are
//! not asked, against a real registry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/images.rs"]
#[allow(dead_code)]
mod images;
#[path = "support/open.rs"]
mod open;

use std::path::{Path, PathBuf};

use certificates::{Authority, CertificateFolder};
use docker_registry::DockerRegistry;
use forebay::http::{HttpClient, HttpOptions, RetryPolicy};
use forebay::oci::Tag;
use forebay::progress::Silent;
use forebay::registry::{OpenOptions, PushReport, RegistryError, push};

fn registry(server: &Path, more: &str) -> Option<DockerRegistry> {
    let file = |extension| server.with_extension(extension).display().to_string();
    let (certificate, key) = (file("crt"), file("key"));
    DockerRegistry::start_with(&format!(
        "  tls:\n    certificate: {certificate}\n    key: {key}\n{more}"
    ))
}

async fn push_to(
    server: &DockerRegistry,
    folder: &CertificateFolder,
    http: &HttpClient,
) -> Result<PushReport, RegistryError> {
    let options = OpenOptions {
        certificate_folders: vec![PathBuf::from("/nonexistent"), folder.path().to_owned()],
        ..OpenOptions::default()
    };
    let name = format!("{}/project", server.address());
    let registry = open::try_repository(&name, http, Vec::new(), &options)?;
    let tags = ["1".parse::<Tag>().unwrap()];
    push(&*registry, &images::image(&["a"]), &tags, None, &Silent).await
}

/// What a person reads: the error and its causes.
fn told(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn an_own_authority_is_trusted_where_it_is_named() {
    let authority = Authority::new();
    let Some(server) = registry(&authority.sign("server", "IP:127.0.0.1", "2"), "") else {
        return;
    };
    let nothing = CertificateFolder::new(server.address());
    // For this registry alone, as Docker and podman do it.
    let known = CertificateFolder::new(server.address()).with(&authority.certificate(), "ca.crt");
    push_to(&server, &known, &open::http()).await.unwrap();
    // For everything, by --ca-file.
    let http = HttpClient::new(&HttpOptions {
        extra_certificates: vec![authority.certificate()],
        ..HttpOptions::default()
    })
    .unwrap();
    push_to(&server, &nothing, &http).await.unwrap();

    // A second attempt would come in some hours.
    let hours = std::time::Duration::from_secs(100_000);
    let retry = RetryPolicy {
        attempts: 2,
        base_delay: hours,
        max_delay: hours,
    };
    let patient = HttpClient::new(&HttpOptions {
        retry,
        ..HttpOptions::default()
    })
    .unwrap();
    let error = push_to(&server, &nothing, &patient).await.unwrap_err();
    assert!(told(&error).contains("--ca-file"), "{}", told(&error));

    let broken = CertificateFolder::new(server.address()).with(Path::new(file!()), "ca.crt");
    let error = push_to(&server, &broken, &open::http()).await.unwrap_err();
    assert!(
        told(&error).contains("no certificate in PEM form"),
        "{}",
        told(&error)
    );
}

#[tokio::test]
async fn certificates_that_are_not_right_say_what_to_do() {
    let authority = Authority::new();
    for (name, days, expected) in [
        ("DNS:registry.test", "2", "for another name"),
        ("IP:127.0.0.1", "-1", "has run out"),
    ] {
        let Some(server) = registry(&authority.sign("server", name, days), "") else {
            return;
        };
        let folder =
            CertificateFolder::new(server.address()).with(&authority.certificate(), "ca.crt");
        let error = push_to(&server, &folder, &open::http()).await.unwrap_err();
        assert!(told(&error).contains(expected), "{}", told(&error));
    }
    let Some(plain) = DockerRegistry::start() else {
        return;
    };
    let folder = CertificateFolder::new(plain.address());
    let error = push_to(&plain, &folder, &open::http()).await.unwrap_err();
    assert!(
        told(&error).contains("does not speak TLS"),
        "{}",
        told(&error)
    );
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let authority = Authority::new();
    let ca = authority.certificate();
    let clients = format!("    clientcas:\n      - {}\n", ca.display());
    let Some(server) = registry(&authority.sign("server", "IP:127.0.0.1", "2"), &clients) else {
        return;
    };
    let client = authority.sign("client", "DNS:deployer.test", "2");
    let with_ca = || CertificateFolder::new(server.address()).with(&ca, "ca.crt");
    let certificate = client.with_extension("crt");
    let whole = with_ca()
        .with(&certificate, "client.cert")
        .with(&client.with_extension("key"), "client.key");
    push_to(&server, &whole, &open::http()).await.unwrap();

    let without_key = with_ca().with(&certificate, "client.cert");
    for (folder, expected) in [
        // Whether the server's reason is seen before the connection ends is chance.
        (with_ca(), "cannot reach the registry"),
        (without_key, "has no key beside it"),
    ] {
        let error = push_to(&server, &folder, &open::http()).await.unwrap_err();
        assert!(told(&error).contains(expected), "{}", told(&error));
    }
}

#[tokio::test]
#[ignore = "runs in a process of its own, for the other test"]
async fn push_past_a_proxy() {
    let server = DockerRegistry::start().unwrap();
    let registry = open::repository(&format!("{}/project", server.address()), Vec::new());
    let image = images::image(&["a"]);
    push(&*registry, &image, &[], None, &Silent).await.unwrap();
}

#[test]
fn the_systems_proxy_is_not_asked_for_what_listens_on_this_machine() {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "push_past_a_proxy", "--ignored"]);
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
    ] {
        // Nothing listens there.
        command.env(name, "http://127.0.0.1:1");
    }
    command.env_remove("no_proxy").env_remove("NO_PROXY");
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
