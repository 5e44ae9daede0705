//! Where an interpreter looks for what is installed.

use serde::{Deserialize, Serialize};

/// Where an interpreter looks for what is installed: Python's installation
/// scheme (`sysconfig.get_paths()`), as paths without the leading slash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallScheme {
    /// Pure Python packages.
    pub purelib: String,
    /// Packages with compiled parts.
    pub platlib: String,
    /// Scripts.
    pub scripts: String,
    /// C headers; the distribution's name is appended.
    pub headers: String,
    /// Data files: `sys.prefix`.
    pub data: String,
    /// What stands after `#!` in scripts.
    pub interpreter: String,
}

impl InstallScheme {
    /// The scheme of a CPython under `prefix` that calls its package directory
    /// `packages` (`site-packages`, or Debian's `dist-packages`).
    pub fn under(
        prefix: &str,
        (major, minor): (u8, u8),
        packages: &str,
        interpreter: &str,
    ) -> Self {
        let site = format!("{prefix}/lib/python{major}.{minor}/{packages}");
        Self {
            purelib: site.clone(),
            platlib: site,
            scripts: format!("{prefix}/bin"),
            headers: format!("{prefix}/include/python{major}.{minor}"),
            data: prefix.to_owned(),
            interpreter: interpreter.to_owned(),
        }
    }

    /// A scheme that is no interpreter's: for a directory of its own.
    pub fn relative() -> Self {
        Self {
            purelib: "site-packages".to_owned(),
            platlib: "site-packages".to_owned(),
            scripts: "bin".to_owned(),
            headers: "include".to_owned(),
            data: "data".to_owned(),
            interpreter: "/usr/bin/env python3".to_owned(),
        }
    }
}
