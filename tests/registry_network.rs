//! The way to a registry that a company prescribes: proxies, authorities of its own, client
//! certificates. With the program itself, because all of it is said in variables.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
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
mod http_proxy;
#[path = "support/open.rs"]
#[allow(dead_code)]
mod open;
#[path = "support/small_project.rs"]
mod small_project;

use certificates::{Authority, CertificateFolder};
use docker_registry::DockerRegistry;
use forebay::http::{HttpClient, HttpOptions, RetryPolicy};
use forebay::oci::Sha256Digest;
use forebay::registry::OpenOptions;
use forebay_support::{Finished, Machine};
use http_proxy::HttpProxy;
use small_project::small_project;

/// Names that no resolver knows: who gets there has asked the proxy.
const SECURE: &str = "registry.proxied.test";
const PLAIN: &str = "plain.proxied.test:5000";

/// Two registries behind a proxy, and a project.
struct Network {
    authority: Authority,
    secure: DockerRegistry,
    plain: DockerRegistry,
    proxy: HttpProxy,
    project: tempfile::TempDir,
}

impl Network {
    async fn new() -> Option<Self> {
        let authority = Authority::new();
        let server = authority.sign("server", &format!("DNS:{SECURE}"), "2");
        let file = |extension| server.with_extension(extension).display().to_string();
        let tls = format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            file("crt"),
            file("key")
        );
        let (secure, plain) = (DockerRegistry::start_with(&tls)?, DockerRegistry::start()?);
        let hosts = BTreeMap::from([
            (format!("{SECURE}:443"), secure.address().to_owned()),
            (PLAIN.to_owned(), plain.address().to_owned()),
        ]);
        let project = tempfile::tempdir().unwrap();
        small_project(project.path());
        Some(Self {
            authority,
            secure,
            plain,
            proxy: HttpProxy::start(hosts).await,
            project,
        })
    }

    /// A machine on which nothing but these variables says how the network is reached.
    fn machine(&self, variables: &[(&str, &str)]) -> Machine {
        let mut machine = Machine::new();
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            for name in [name.to_owned(), name.to_lowercase()] {
                machine = machine.without_variable(&name);
            }
        }
        machine = machine.without_variable("SSL_CERT_FILE");
        for (name, value) in variables {
            machine = machine.with_variable(name, value);
        }
        machine
    }

    /// Deploys to a host in a thread of its own, since the proxy needs this one.
    async fn deploy(&self, machine: Machine, host: &str, more: &[&str]) -> Finished {
        let project = self.project.path().to_owned();
        let repository = format!("{host}/project");
        let more: Vec<String> = more.iter().map(|text| (*text).to_owned()).collect();
        tokio::task::spawn_blocking(move || {
            let _ = std::fs::remove_dir_all(project.join(".local"));
            let common = ["deploy-image", "-c", "dev", "-b", "file://.local", "-r"];
            let arguments = common.map(str::to_owned).into_iter();
            machine.forebay(&project, arguments.chain([repository]).chain(more))
        })
        .await
        .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registries_are_reached_through_the_proxy() {
    let Some(network) = Network::new().await else {
        return;
    };
    let authority = network.authority.certificate().display().to_string();
    let proxy = format!("http://anna:s3cret@{}", network.proxy.address());

    let machine = network.machine(&[("HTTPS_PROXY", &proxy)]);
    let finished = network
        .deploy(machine, SECURE, &["--ca-file", &authority])
        .await;
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    assert!(
        network
            .secure
            .requests()
            .iter()
            .any(|r| r.starts_with("PUT /v2/project/manifests/"))
    );
    let tunnels = network.proxy.seen();
    assert!(!tunnels.is_empty());
    for seen in &tunnels {
        assert_eq!(
            (seen.method.as_str(), &*seen.target),
            ("CONNECT", "registry.proxied.test:443")
        );
        // "anna:s3cret"
        assert_eq!(
            seen.authorization.as_deref(),
            Some("Basic YW5uYTpzM2NyZXQ=")
        );
    }

    // The lower-case name counts too; a plain registry's requests are forwarded.
    let machine = network.machine(&[("http_proxy", &proxy)]);
    let finished = network
        .deploy(machine, PLAIN, &["--insecure-registry", PLAIN])
        .await;
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    assert!(
        network
            .plain
            .requests()
            .iter()
            .any(|r| r.starts_with("PUT /v2/project/manifests/"))
    );
    let forwarded = network.proxy.seen().split_off(tunnels.len());
    let target = format!("http://{PLAIN}/v2/project/");
    assert!(
        forwarded
            .iter()
            .all(|seen| seen.target.starts_with(&target)),
        "{forwarded:?}"
    );
    assert!(
        forwarded.iter().any(|seen| seen.method == "PUT"),
        "{forwarded:?}"
    );

    // Whom NO_PROXY names is sought without it, and is not to be found; nor without a proxy.
    let asked = network.proxy.seen().len();
    for variables in [
        &[("HTTPS_PROXY", &*proxy), ("NO_PROXY", ".proxied.test")][..],
        &[("HTTP_PROXY", &*proxy)],
        &[],
    ] {
        let machine = network.machine(variables);
        let finished = network
            .deploy(machine, SECURE, &["--ca-file", &authority])
            .await;
        assert_eq!(finished.status, 1, "{variables:?}: {}", finished.stderr);
        assert!(
            finished
                .stderr
                .contains("cannot reach the registry registry.proxied.test")
        );
        assert!(!finished.stderr.contains("s3cret"), "{}", finished.stderr);
    }
    assert_eq!(network.proxy.seen().len(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_variables_of_openssl_name_authorities() {
    let Some(network) = Network::new().await else {
        return;
    };
    let proxy = format!("http://{}", network.proxy.address());
    let authority = network.authority.certificate();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(&authority, folder.path().join("company.pem")).unwrap();
    // Gives the file the name under which it is sought.
    Machine::new().run(folder.path(), "openssl", ["rehash", "."]);
    let authority = authority.display().to_string();
    let folder = folder.path().display().to_string();
    let missing = "/nonexistent";
    for (variables, expected) in [
        (&[("SSL_CERT_FILE", &*authority)][..], 0),
        (&[("SSL_CERT_DIR", &folder)], 0),
        // The machine's own authorities have not signed it.
        (&[], 1),
        // A machine without any is a machine all the same.
        (&[("SSL_CERT_FILE", missing), ("SSL_CERT_DIR", missing)], 1),
    ] {
        let mut variables = variables.to_vec();
        variables.push(("HTTPS_PROXY", &proxy));
        let finished = network
            .deploy(network.machine(&variables), SECURE, &[])
            .await;
        assert_eq!(
            finished.status, expected,
            "{variables:?}: {}",
            finished.stderr
        );
        if expected == 1 {
            assert!(
                finished.stderr.contains("SSL_CERT_FILE"),
                "{}",
                finished.stderr
            );
        }
    }
}

/// A server that wants a client certificate and says so before the connection ends.
/// Gives its address; how often it was asked is what the thread finds.
fn strict_about_clients(authority: &Authority) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let read = |path: &Path| CertificateDer::from_pem_file(path).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut trusted = rustls::RootCertStore::empty();
    trusted.add(read(&authority.certificate())).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(trusted))
        .build()
        .unwrap();
    let server = authority.sign("strict", "IP:127.0.0.1", "2");
    let key = PrivateKeyDer::from_pem_file(server.with_extension("key")).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![read(&server.with_extension("crt"))], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::<std::sync::atomic::AtomicUsize>::default();
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            // It fails, and has then said why.
            let _ = connection.complete_io(&mut stream);
            // Whoever ends first may take away what the other has yet to read.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_missing_client_certificate_is_told_at_once() {
    let authority = Authority::new();
    let (address, asked) = strict_about_clients(&authority);
    let folder = CertificateFolder::new(&address).with(&authority.certificate(), "ca.crt");
    let options = OpenOptions {
        certificate_folders: vec![folder.path().to_owned()],
        ..OpenOptions::default()
    };
    // A second attempt would come in days.
    let days = std::time::Duration::from_secs(1_000_000);
    let http = HttpClient::new(&HttpOptions {
        retry: RetryPolicy {
            attempts: 4,
            base_delay: days,
            max_delay: days,
        },
        ..HttpOptions::default()
    })
    .unwrap();
    let name = format!("{address}/project");
    let registry = open::try_repository(&name, &http, Vec::new(), &options).unwrap();
    let error = registry
        .has_blob(&Sha256Digest::of(b"x"))
        .await
        .unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("client.cert"), "{cause}");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
}
