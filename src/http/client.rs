//! Building the shared client. Nothing here runs until a command needs the network.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::RetryPolicy;

/// Which servers' certificates are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TlsVerification {
    /// Those that the system's certificate authorities have signed.
    #[default]
    System,
    /// Those that the authorities in this PEM file, or in the files of this
    /// folder, have signed, and no others.
    Authority(PathBuf),
    /// Any. Whoever sits on the line can read and change everything; the caller warns.
    Off,
}

/// What a client shows to a server that asks who it is (mutual TLS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// A PEM file with the certificate and those that lead to its authority.
    pub certificate: PathBuf,
    /// A PEM file with the private key.
    pub key: PathBuf,
}

/// What a user may set about connections.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Which servers' certificates are believed.
    pub verification: TlsVerification,
    /// PEM files with certificate authorities to trust beside those of `verification`.
    pub extra_certificates: Vec<PathBuf>,
    /// What is shown to servers that ask for a certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// How failed requests are repeated.
    pub retry: RetryPolicy,
    /// How long a connection may stand still. There is no limit on the whole:
    /// it would cut large bodies on slow lines.
    pub stall_timeout: Duration,
}

impl HttpOptions {
    /// [`Self::stall_timeout`] where nobody says otherwise.
    pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            verification: TlsVerification::default(),
            extra_certificates: Vec::new(),
            client_certificate: None,
            retry: RetryPolicy::default(),
            stall_timeout: Self::STALL_TIMEOUT,
        }
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// A certificate file cannot be read.
    #[error("cannot read the certificate file {}", path.display())]
    ReadCertificate {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A certificate file holds no usable PEM certificate.
    #[error("{} holds no certificate in PEM form", path.display())]
    ParseCertificate {
        /// The file or folder.
        path: PathBuf,
    },
    /// A client certificate and its key are of no use.
    #[error("{} and {} are not a certificate and its private key in PEM form", certificate.display(), key.display())]
    ClientCertificate {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The TLS or connection setup failed.
    #[error("cannot set up HTTPS")]
    Setup(#[source] reqwest::Error),
}

/// Connection pools shared by registry, bucket and credentials.
#[derive(Debug, Clone)]
pub struct HttpClient {
    pools: Arc<Pools>,
    options: Arc<HttpOptions>,
}

#[derive(Debug)]
struct Pools {
    usual: reqwest::Client,
    /// Requests without a limit of time.
    streaming: OnceLock<reqwest::Client>,
    /// Past the system's proxy: what listens on this machine is not for it.
    direct: OnceLock<reqwest::Client>,
    direct_streaming: OnceLock<reqwest::Client>,
}

/// What sets one pool apart from another.
#[derive(Clone, Copy)]
struct Kind {
    streaming: bool,
    direct: bool,
}

/// A query may hold a signature, a user name a password, and what follows `uploads/` opens a session.
fn detail(method: &http::Method, url: &url::Url) {
    const SESSIONS: &str = "/uploads/";
    let (host, path) = (url.host_str().unwrap_or_default(), url.path());
    match path.split_once(SESSIONS) {
        Some((path, _)) => log::debug!("{method} {host}{path}{SESSIONS}…"),
        None => log::debug!("{method} {host}{path}"),
    }
}

impl HttpClient {
    /// How long a connection may take to open.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

    /// Sets up TLS (ring, the system's certificates) and the pool; opens no connection.
    ///
    /// Redirects are never followed here: a registry's redirect must not carry
    /// credentials to another host, so the caller follows it by hand.
    ///
    /// # Errors
    /// An unusable certificate file is an error, never ignored.
    pub fn new(options: &HttpOptions) -> Result<Self, HttpClientError> {
        // Fails only if a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let usual = Kind {
            streaming: false,
            direct: false,
        };
        Ok(Self {
            pools: Arc::new(Pools {
                usual: build(options, usual)?,
                streaming: OnceLock::new(),
                direct: OnceLock::new(),
                direct_streaming: OnceLock::new(),
            }),
            options: Arc::new(options.clone()),
        })
    }

    /// Starts a request that is given up if no answer begins within
    /// [`HttpOptions::stall_timeout`] of its start, however busily its body is sent:
    /// for requests with small bodies.
    pub fn request(&self, method: http::Method, url: url::Url) -> reqwest::RequestBuilder {
        let kind = Kind {
            streaming: false,
            direct: goes_direct(&url),
        };
        detail(&method, &url);
        // What could be set up with a proxy can be set up without.
        let client = self.client(kind).unwrap_or(&self.pools.usual);
        client.request(method, url)
    }

    /// Starts a request without any limit of time, on a pool of its own: for
    /// bodies that may take minutes to send. The caller watches its progress.
    ///
    /// # Errors
    /// As [`Self::new`]: that pool is set up when it is first used.
    pub fn streaming_request(
        &self,
        method: http::Method,
        url: url::Url,
    ) -> Result<reqwest::RequestBuilder, HttpClientError> {
        let kind = Kind {
            streaming: true,
            direct: goes_direct(&url),
        };
        detail(&method, &url);
        Ok(self.client(kind)?.request(method, url))
    }

    fn client(&self, kind: Kind) -> Result<&reqwest::Client, HttpClientError> {
        let slot = match (kind.streaming, kind.direct) {
            (false, false) => return Ok(&self.pools.usual),
            (true, false) => &self.pools.streaming,
            (false, true) => &self.pools.direct,
            (true, true) => &self.pools.direct_streaming,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = build(&self.options, kind)?;
        Ok(slot.get_or_init(|| client))
    }

    /// How failed requests are repeated.
    pub fn retry(&self) -> &RetryPolicy {
        &self.options.retry
    }

    /// How long a connection may stand still.
    pub fn stall_timeout(&self) -> Duration {
        self.options.stall_timeout
    }

    /// What the client was made with.
    pub fn options(&self) -> &HttpOptions {
        &self.options
    }
}

/// Whether `url` is on this machine while the system has a proxy that would be asked for it.
fn goes_direct(url: &url::Url) -> bool {
    // Elsewhere the system has other places for its proxies.
    let may_have_proxy = !cfg!(target_os = "linux")
        || [
            "http_proxy",
            "HTTP_PROXY",
            "https_proxy",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    may_have_proxy && is_loopback(url)
}

/// Whether an address is on this machine.
pub(crate) fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// A machine may have no certificate authorities at all, and need none: then only those
/// that are named are trusted, and a server that is signed by others is told of as such.
fn build(options: &HttpOptions, kind: Kind) -> Result<reqwest::Client, HttpClientError> {
    let client = builder(options, kind, true)?.build();
    match client {
        Err(_) if options.verification == TlsVerification::System => {
            builder(options, kind, false)?.build()
        }
        client => client,
    }
    .map_err(HttpClientError::Setup)
}

fn builder(
    options: &HttpOptions,
    kind: Kind,
    with_system: bool,
) -> Result<reqwest::ClientBuilder, HttpClientError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(HttpClient::CONNECT_TIMEOUT);
    if !kind.streaming {
        builder = builder.read_timeout(options.stall_timeout);
    }
    if kind.direct {
        builder = builder.no_proxy();
    }
    if let Some(client) = &options.client_certificate {
        builder = builder.identity(read_identity(client)?);
    }
    let mut extra = Vec::new();
    for path in &options.extra_certificates {
        extra.extend(read_certificates(path)?);
    }
    Ok(match &options.verification {
        TlsVerification::System if with_system => builder.tls_certs_merge(extra),
        TlsVerification::System => builder.tls_certs_only(extra),
        TlsVerification::Authority(path) => {
            extra.extend(read_certificates(path)?);
            builder.tls_certs_only(extra)
        }
        TlsVerification::Off => builder.tls_danger_accept_invalid_certs(true),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, HttpClientError> {
    std::fs::read(path).map_err(|source| HttpClientError::ReadCertificate {
        path: path.to_owned(),
        source,
    })
}

fn read_identity(client: &ClientCertificate) -> Result<reqwest::Identity, HttpClientError> {
    let mut pem = read(&client.key)?;
    pem.push(b'\n');
    pem.extend(read(&client.certificate)?);
    reqwest::Identity::from_pem(&pem).map_err(|_| HttpClientError::ClientCertificate {
        certificate: client.certificate.clone(),
        key: client.key.clone(),
    })
}

fn read_certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, HttpClientError> {
    let mut certificates = Vec::new();
    if path.is_dir() {
        let unreadable = |source| HttpClientError::ReadCertificate {
            path: path.to_owned(),
            source,
        };
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            // Folders of authorities also hold links by hash, keys and notes.
            if file.is_file() {
                certificates.extend(parse_certificates(&read(&file)?));
            }
        }
    } else {
        certificates = parse_certificates(&read(path)?);
    }
    match certificates.is_empty() {
        true => Err(HttpClientError::ParseCertificate {
            path: path.to_owned(),
        }),
        false => Ok(certificates),
    }
}

fn parse_certificates(pem: &[u8]) -> Vec<reqwest::Certificate> {
    reqwest::Certificate::from_pem_bundle(pem).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_on_this_machine_is_told_from_the_rest() {
        for (url, expected) in [
            ("http://127.3.2.1:80/", true),
            ("https://[::1]:5000/v2/", true),
            ("http://localhost:5000/", true),
            ("http://registry.localhost/", true),
            ("http://localhost.evil.test/", false),
            ("http://127.0.0.1.evil.test/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn unusable_certificates_are_refused_with_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let verification = |path: &Path| HttpOptions {
            verification: TlsVerification::Authority(path.to_owned()),
            ..HttpOptions::default()
        };
        let refused = |options: &HttpOptions| HttpClient::new(options).unwrap_err().to_string();
        assert!(refused(&verification(&path)).contains("cannot read"));
        std::fs::write(&path, "no certificate").unwrap();
        for path in [path.as_path(), directory.path()] {
            assert!(refused(&verification(path)).contains("no certificate in PEM form"));
        }
        let options = HttpOptions {
            client_certificate: Some(ClientCertificate {
                certificate: path.clone(),
                key: path.clone(),
            }),
            ..HttpOptions::default()
        };
        assert!(refused(&options).contains("private key"));
    }
}
