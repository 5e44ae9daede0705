//! Building the shared client. Nothing here runs until a command needs the network.

use std::path::PathBuf;
use std::time::Duration;

use super::RetryPolicy;

/// What a user may set about connections.
#[derive(Debug, Clone, Default)]
pub struct HttpOptions {
    /// PEM files with certificate authorities to trust beside the system's.
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
    retry: RetryPolicy,
}

impl HttpClient {
    /// How long a connection may take to open.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
    /// How long a response may stand still. There is no limit on the whole:
    /// it would cut large bodies on slow lines.
    const STALL_TIMEOUT: Duration = Duration::from_secs(60);

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
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Self::CONNECT_TIMEOUT)
            .read_timeout(Self::STALL_TIMEOUT);
        for path in &options.extra_certificates {
            let pem = std::fs::read(path).map_err(|source| HttpClientError::ReadCertificate {
                path: path.clone(),
                source,
            })?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|certificates| !certificates.is_empty())
                .ok_or_else(|| HttpClientError::ParseCertificate { path: path.clone() })?;
            for certificate in certificates {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Ok(Self {
            inner: builder.build().map_err(HttpClientError::Setup)?,
            retry: options.retry,
        })
    }

    /// Starts a request.
    pub fn request(&self, method: http::Method, url: url::Url) -> reqwest::RequestBuilder {
        self.inner.request(method, url)
    }

    /// How failed requests are repeated.
    pub fn retry(&self) -> &RetryPolicy {
        &self.retry
    }
}
