//! A real Vault server (its open fork) in its development mode, on a loopback port.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A running server; it ends with this value.
pub(crate) struct OpenBao {
    child: Child,
    address: String,
    directory: tempfile::TempDir,
    client: forebay::http::HttpClient,
}

impl OpenBao {
    /// Starts one over plain HTTP; `None` if it is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(false)
    }

    /// Starts one over TLS with an authority of its own.
    pub(crate) fn start_tls() -> Option<Self> {
        Self::start_with(true)
    }

    fn start_with(tls: bool) -> Option<Self> {
        let variable = "FOREBAY_TEST_VAULT";
        let Some(program) = std::env::var_os(variable) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "{variable} is not set: run tests/run"
            );
            return None;
        };
        // Somebody else may take the port before the server does.
        (0..5)
            .find_map(|_| Self::try_start(Path::new(&program), tls))
            .map_or_else(|| panic!("the Vault server does not start"), Some)
    }

    fn try_start(program: &Path, tls: bool) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(program);
        command
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg("-dev-root-token-id=root")
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .env("HOME", directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if tls {
            let certificates = directory.path().to_str().unwrap();
            command.args(["-dev-tls", &format!("-dev-tls-cert-dir={certificates}")]);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let started = lines.any(|line| line.unwrap().contains("server started!"));
        if !started {
            let _ = child.wait();
            return None;
        }
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let scheme = if tls { "https" } else { "http" };
        let options = forebay::http::HttpOptions {
            verification: match tls {
                true => {
                    forebay::http::TlsVerification::Authority(directory.path().join("vault-ca.pem"))
                }
                false => forebay::http::TlsVerification::System,
            },
            ..Default::default()
        };
        Some(Self {
            child,
            address: format!("{scheme}://127.0.0.1:{port}"),
            directory,
            client: forebay::http::HttpClient::new(&options).unwrap(),
        })
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The authority that signed the server's certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("vault-ca.pem")
    }

    /// Does as root what must succeed.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.post_in("", path, body).await
    }

    /// The same in a namespace.
    pub(crate) async fn post_in(&self, namespace: &str, path: &str, body: Value) -> Value {
        let url = format!("{}/v1/{path}", self.address).parse().unwrap();
        let request = (self.client.request(http::Method::POST, url))
            .header("x-vault-token", "root")
            .header("x-vault-namespace", namespace)
            .json(&body);
        let response = request.send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Mounts what stands in for Google's engine: a value at the path `gcp/NAME`.
    pub(crate) async fn put_token(&self, name: &str, data: Value) {
        if name == "token/deployer" {
            let engine = json!({"type": "kv", "options": {"version": "1"}});
            self.post("sys/mounts/gcp", engine).await;
            let policy = r#"path "gcp/token/*" { capabilities = ["read"] }"#;
            self.post("sys/policies/acl/deploy", json!({"policy": policy}))
                .await;
        }
        self.post(&format!("gcp/{name}"), data).await;
    }

    /// A new Vault token.
    pub(crate) async fn token(&self, properties: Value) -> String {
        let answer = self.post("auth/token/create", properties).await;
        answer["auth"]["client_token"].as_str().unwrap().to_owned()
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
