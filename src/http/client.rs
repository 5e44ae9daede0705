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
    /// Those that the authorities in this PEM file have signed, and no others.
    Authority(PathBuf),
    /// Any. Whoever sits on the line can read and change everything; the caller warns.
    Off,
}

/// What a user may set about connections.
#[derive(Debug, Clone, Default)]
pub struct HttpOptions {
    /// Which servers' certificates are believed.
    pub verification: TlsVerification,
    /// PEM files with certificate authorities to trust beside those of `verification`.
    pub extra_certificates: Vec<PathBuf>,
    /// How failed requests are repeated.
    pub retry: RetryPolicy,
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
        /// The file.
        path: PathBuf,
    },
    /// The TLS or connection setup failed.
    #[error("cannot set up HTTPS")]
    Setup(#[source] reqwest::Error),
}

/// A connection pool shared by registry, bucket and credentials.
#[derive(Debug, Clone)]
pub struct HttpClient {
    inner: reqwest::Client,
    streaming: Arc<OnceLock<reqwest::Client>>,
    options: Arc<HttpOptions>,
}

impl HttpClient {
    /// How long a connection may take to open.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
    /// How long a response may stand still. There is no limit on the whole:
    /// it would cut large bodies on slow lines.
    pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);

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
        Ok(Self {
            inner: build(options, Some(Self::STALL_TIMEOUT))?,
            streaming: Arc::default(),
            options: Arc::new(options.clone()),
        })
    }

    /// Starts a request that is given up if no answer begins within
    /// [`Self::STALL_TIMEOUT`] of its start, however busily its body is sent:
    /// for requests with small bodies.
    pub fn request(&self, method: http::Method, url: url::Url) -> reqwest::RequestBuilder {
        self.inner.request(method, url)
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
        let client = match self.streaming.get() {
            Some(client) => client,
            None => {
                let client = build(&self.options, None)?;
                self.streaming.get_or_init(|| client)
            }
        };
        Ok(client.request(method, url))
    }

    /// How failed requests are repeated.
    pub fn retry(&self) -> &RetryPolicy {
        &self.options.retry
    }

    /// What the client was made with.
    pub fn options(&self) -> &HttpOptions {
        &self.options
    }
}

fn build(
    options: &HttpOptions,
    stall_timeout: Option<Duration>,
) -> Result<reqwest::Client, HttpClientError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(HttpClient::CONNECT_TIMEOUT);
    if let Some(timeout) = stall_timeout {
        builder = builder.read_timeout(timeout);
    }
    let mut extra = Vec::new();
    for path in &options.extra_certificates {
        extra.extend(read_certificates(path)?);
    }
    builder = match &options.verification {
        TlsVerification::System => builder.tls_certs_merge(extra),
        TlsVerification::Authority(path) => {
            extra.extend(read_certificates(path)?);
            builder.tls_certs_only(extra)
        }
        TlsVerification::Off => builder.tls_danger_accept_invalid_certs(true),
    };
    builder.build().map_err(HttpClientError::Setup)
}

fn read_certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, HttpClientError> {
    let pem = std::fs::read(path).map_err(|source| HttpClientError::ReadCertificate {
        path: path.to_owned(),
        source,
    })?;
    reqwest::Certificate::from_pem_bundle(&pem)
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| HttpClientError::ParseCertificate {
            path: path.to_owned(),
        })
}
