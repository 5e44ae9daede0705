//! Starts the emulators that others use too: `fake-gcs-server` for Google Cloud Storage,
//! moto for S3, Azurite for Azure. Each is found by a variable or on `PATH`; without it a
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
