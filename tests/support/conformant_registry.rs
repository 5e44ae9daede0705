//! A second real registry, which passes the distribution specification's own conformance
//! suite: `ferro-oci-server`, on a loopback port, with its data in memory.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running registry; it ends with this value.
pub(crate) struct ConformantRegistry {
    process: Child,
    address: String,
}

impl ConformantRegistry {
    /// Starts one; `None` if it is not installed and nobody insists.
    pub(crate) fn start() -> Option<Self> {
        let variable = "FOREBAY_TEST_CONFORMANT_REGISTRY";
        let Some(program) = std::env::var_os(variable) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "{variable} is not set: run tests/run"
            );
            return None;
        };
        // Somebody else may take the port before the server does.
        (0..5)
            .find_map(|_| {
                let address = free_address();
                let process = Command::new(&program)
                    .env("FERRO_OCI_LISTEN", &address)
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                let mut registry = Self { process, address };
                registry.listens().then_some(registry)
            })
            .map_or_else(|| panic!("the registry does not start"), Some)
    }

    fn listens(&mut self) -> bool {
        while TcpStream::connect(&self.address).is_err() {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for ConformantRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
