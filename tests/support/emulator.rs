//! Starts `fake-gcs-server`, the emulator that others use too. It is found by
//! the variable `FOREBAY_TEST_FAKE_GCS_SERVER` or on `PATH`; without it a test
//! has nothing to run against, which under `CI` is a failure.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running emulator; it ends with this value.
pub(crate) struct Emulator {
    /// `HOST:PORT`.
    pub(crate) address: String,
    process: Child,
}

fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("FOREBAY_TEST_FAKE_GCS_SERVER") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| {
            ["fake-gcs-server", "fake-gcs-server-linux-amd64"].map(|name| folder.join(name))
        })
        .find(|candidate| candidate.is_file())
}

impl Emulator {
    /// `None` if there is no emulator and nobody insists.
    pub(crate) async fn start() -> Option<Self> {
        let Some(program) = program() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "fake-gcs-server is not installed: set FOREBAY_TEST_FAKE_GCS_SERVER"
            );
            eprintln!("skipped: fake-gcs-server is not installed");
            return None;
        };
        // The port is free when we ask; the emulator cannot be given a socket.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let process = Command::new(program)
            .args([
                "-scheme",
                "http",
                "-backend",
                "memory",
                "-log-level",
                "error",
            ])
            .args(["-host", "127.0.0.1", "-port", &port.to_string()])
            .args(["-external-url", &format!("http://{address}")])
            .args(["-public-host", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
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
