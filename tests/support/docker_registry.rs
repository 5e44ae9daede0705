//! Debian's `docker-registry` on a free loopback port, with its access log.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running registry; it ends with this value.
pub(crate) struct DockerRegistry {
    child: Child,
    address: String,
    directory: tempfile::TempDir,
}

impl DockerRegistry {
    /// Starts one without authentication; `None` if the program is not installed.
    ///
    /// # Panics
    /// If it is not installed and `CI` is set.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// Starts one with `auth:` configured as in the registry's own documentation.
    pub(crate) fn start_with(auth: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{auth}",
            directory.path().join("data").display(),
        );
        std::fs::write(&config, text).unwrap();
        let access_log = std::fs::File::create(directory.path().join("access.log")).unwrap();
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(access_log)
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "docker-registry is needed: {error}"
                );
                return None;
            }
        };
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = log.next().expect("the registry ended").unwrap();
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find(['"', ' ', ',']).unwrap_or(rest.len());
                break rest[..end].to_owned();
            }
        };
        // A full pipe would stop it.
        std::thread::spawn(move || log.for_each(drop));
        Some(Self {
            child,
            address,
            directory,
        })
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where it keeps its data.
    #[allow(dead_code)]
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Its requests so far, as `METHOD PATH STATUS`, with digests and upload ids
    /// left out. Small answers are logged before they are sent.
    pub(crate) fn requests(&self) -> Vec<String> {
        read_access_log(&self.directory.path().join("access.log"))
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_access_log(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let mut parts = line.split('"');
            let request = parts.nth(1).unwrap();
            let status = parts.next().unwrap().split_whitespace().next().unwrap();
            let mut words = request.split(' ');
            let method = words.next().unwrap();
            let path = words.next().unwrap().split('?').next().unwrap();
            format!("{method} {path} {status}")
        })
        .collect()
}
