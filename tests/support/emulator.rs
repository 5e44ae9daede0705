//! Starts the emulators that others use too: `fake-gcs-server` for Google Cloud Storage,
//! moto for S3, Azurite for Azure; and two WebDAV servers, wsgidav and rclone. Each is found by a variable or on `PATH`; without it a
//! test has nothing to run against, which under `CI` is a failure.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running emulator; it ends with this value.
pub(crate) struct Emulator {
    /// `HOST:PORT`.
    pub(crate) address: String,
    process: Child,
}

/// A running WebDAV server with its folder.
pub(crate) struct WebDav {
    pub(crate) emulator: Emulator,
    _folder: tempfile::TempDir,
}

/// The program that `variable` names, or one of these names on `PATH`.
fn program(variable: &str, names: &[&str]) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|candidate| candidate.is_file())
}

impl Emulator {
    /// `None` if there is no emulator of Google Cloud Storage and nobody insists.
    pub(crate) async fn start() -> Option<Self> {
        let names = ["fake-gcs-server", "fake-gcs-server-linux-amd64"];
        Self::run("FOREBAY_TEST_FAKE_GCS_SERVER", &names, |port| {
            format!(
                "-scheme http -backend memory -log-level error -host 127.0.0.1 -port {port} \
                 -external-url http://127.0.0.1:{port} -public-host 127.0.0.1:{port}"
            )
        })
        .await
    }

    /// The same for S3.
    pub(crate) async fn start_s3() -> Option<Self> {
        Self::run("FOREBAY_TEST_MOTO_SERVER", &["moto_server"], |port| {
            format!("-H 127.0.0.1 -p {port}")
        })
        .await
    }

    /// The same for Azure.
    pub(crate) async fn start_azure() -> Option<Self> {
        Self::run("FOREBAY_TEST_AZURITE", &["azurite-blob"], |port| {
            format!(
                "--blobHost 127.0.0.1 --blobPort {port} --inMemoryPersistence --silent \
                 --disableTelemetry --skipApiVersionCheck"
            )
        })
        .await
    }

    /// A WebDAV server that holds to conditions, for one user.
    pub(crate) async fn start_web_dav(user: &str, password: &str) -> Option<WebDav> {
        Self::start_web_dav_with(user, password, serde_json::json!({})).await
    }

    /// The same over TLS. The certificate and its key have one path with two extensions.
    pub(crate) async fn start_web_dav_over_tls(
        user: &str,
        password: &str,
        certificate: &std::path::Path,
    ) -> Option<WebDav> {
        let tls = serde_json::json!({
            "ssl_certificate": certificate.with_extension("crt"),
            "ssl_private_key": certificate.with_extension("key"),
            "ssl_adapter": "builtin",
        });
        Self::start_web_dav_with(user, password, tls).await
    }

    async fn start_web_dav_with(
        user: &str,
        password: &str,
        more: serde_json::Value,
    ) -> Option<WebDav> {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.json");
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("team")).unwrap();
        let mut text = serde_json::json!({
            "provider_mapping": { "/": root },
            "http_authenticator": { "accept_basic": true, "accept_digest": false, "default_to_digest": false },
            "simple_dc": { "user_mapping": { "*": { user: { "password": password } } } },
        });
        let members = text.as_object_mut().unwrap();
        members.extend(more.as_object().cloned().unwrap());
        std::fs::write(&config, text.to_string()).unwrap();
        let emulator = Self::run("FOREBAY_TEST_WEB_DAV", &["wsgidav"], |port| {
            format!(
                "--host 127.0.0.1 --port {port} --server cheroot -q --config {}",
                config.display()
            )
        });
        Some(WebDav {
            emulator: emulator.await?,
            _folder: folder,
        })
    }

    /// One that does not know what `If-Match` on a write or delete means.
    pub(crate) async fn start_lax_web_dav() -> Option<WebDav> {
        let folder = tempfile::tempdir().unwrap();
        let emulator = Self::run("FOREBAY_TEST_RCLONE", &["rclone"], |port| {
            let root = folder.path().display();
            format!("serve webdav {root} --addr 127.0.0.1:{port} --config /dev/null")
        });
        Some(WebDav {
            emulator: emulator.await?,
            _folder: folder,
        })
    }

    async fn run(
        variable: &str,
        names: &[&str],
        arguments: impl FnOnce(u16) -> String,
    ) -> Option<Self> {
        let Some(program) = program(variable, names) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "{} is not installed: set {variable}",
                names[0]
            );
            eprintln!("skipped: {} is not installed", names[0]);
            return None;
        };
        // The port is free when we ask; the emulator cannot be given a socket.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let process = Command::new(program)
            .args(arguments(port).split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        let mut emulator = Self { address, process };
        emulator.wait_until_it_listens().await;
        Some(emulator)
    }

    async fn wait_until_it_listens(&mut self) {
        while tokio::net::TcpStream::connect(&self.address).await.is_err() {
            assert!(
                self.process.try_wait().unwrap().is_none(),
                "the emulator ended at once"
            );
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn create_bucket(&self, name: &str) {
        let url = format!("http://{}/storage/v1/b", self.address);
        let http = forebay::http::HttpClient::new(&Default::default()).unwrap();
        let answer = http
            .request(http::Method::POST, url.parse().unwrap())
            .json(&serde_json::json!({ "name": name }))
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
