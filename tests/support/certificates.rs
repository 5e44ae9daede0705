//! Certificates of the tests' own, made by openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority and what it has signed; the files end with this value.
pub(crate) struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test authority",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ]);
        authority
    }

    /// Signs a certificate for a name such as `IP:127.0.0.1`, whose end lies `days` ahead.
    /// Gives the paths without extension: there are a `.crt` and a `.key`.
    pub(crate) fn sign(&self, file: &str, name: &str, days: &str) -> PathBuf {
        let (key, request, certificate) = (
            format!("{file}.key"),
            format!("{file}.csr"),
            format!("{file}.crt"),
        );
        self.openssl(&[
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            &format!("/CN={file}"),
            "-addext",
            &format!("subjectAltName={name}"),
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-copy_extensions",
            "copy",
            "-days",
            days,
            "-out",
            &certificate,
        ]);
        self.directory.path().join(file)
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .expect("openssl is needed");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

/// A folder `certs.d` that has a folder for one host.
pub(crate) struct CertificateFolder {
    directory: tempfile::TempDir,
    host: String,
}

impl CertificateFolder {
    pub(crate) fn new(host: &str) -> Self {
        let folder = Self {
            directory: tempfile::tempdir().unwrap(),
            host: host.to_owned(),
        };
        std::fs::create_dir(folder.path().join(host)).unwrap();
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Copies a file into the host's folder.
    pub(crate) fn with(self, file: &Path, name: &str) -> Self {
        std::fs::copy(file, self.path().join(&self.host).join(name)).unwrap();
        self
    }
}
