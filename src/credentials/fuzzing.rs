//! See [`crate::fuzzing`].
#![allow(missing_docs)]

use super::docker_config::DockerConfig;

/// Docker's configuration is refused, or says of any host what it has for it.
pub fn docker_config(bytes: &[u8]) {
    if let Ok(config) = DockerConfig::parse(bytes) {
        for host in ["registry.example.com", "docker.io", "localhost:5000", ""] {
            let _ = (config.helper(host), config.login(host));
        }
    }
}
