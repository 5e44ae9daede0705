//! Debian's Docker engine, with its data in a folder of the test's.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running engine; it ends with this value.
pub(crate) struct DockerEngine {
    process: Child,
    directory: tempfile::TempDir,
}

impl DockerEngine {
    /// Starts one; `None` if it is not installed and nobody insists.
    pub(crate) fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let log = std::fs::File::create(place("log")).unwrap();
        let spawned = Command::new("dockerd")
            .arg("--data-root")
            .arg(place("data"))
            .arg("--exec-root")
            .arg(place("exec"))
            .arg("--pidfile")
            .arg(place("pid"))
            .arg("-H")
            .arg(format!("unix://{}", place("socket").display()))
            // No network is needed, and none of the machine's settings are touched.
            .args(["--bridge=none", "--iptables=false"])
            .args(["--ip-forward=false", "--ip-masq=false"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let process = match spawned {
            Ok(process) => process,
            Err(error) => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "dockerd is needed: {error}"
                );
                return None;
            }
        };
        let mut engine = Self { process, directory };
        while !engine.answers() {
            assert!(
                engine.process.try_wait().unwrap().is_none(),
                "the engine ended: {}",
                std::fs::read_to_string(engine.directory.path().join("log")).unwrap()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Some(engine)
    }

    fn answers(&self) -> bool {
        let socket = self.directory.path().join("socket");
        let version = self.command().arg("version").output().unwrap();
        socket.exists() && version.status.success()
    }

    fn command(&self) -> Command {
        let socket = self.directory.path().join("socket");
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        command.env("DOCKER_CONFIG", self.directory.path());
        command.env("DOCKER_BUILDKIT", "0");
        command
    }

    /// Runs `docker`, which must succeed; gives what it prints.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().unwrap();
        assert!(output.status.success(), "docker {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Where a test may keep what goes with the engine.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Saves an image as `docker save` does.
    #[allow(dead_code)]
    pub(crate) fn save(&self, image: &str, name: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        self.docker(&["save", "-o", file.to_str().unwrap(), image]);
        file
    }
}

impl Drop for DockerEngine {
    fn drop(&mut self) {
        // It has mounts and a child of its own to end.
        let number = self.process.id().to_string();
        let _ = Command::new("kill").arg(number).status();
        let _ = self.process.wait();
    }
}
