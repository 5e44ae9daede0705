//! The program's one HTTP stack: one client, one TLS provider, one rule for retries.

mod client;
mod object_store;
mod retry;
mod send;
mod text;
mod tls;

pub(crate) use client::is_loopback;
pub use client::{ClientCertificate, HttpClient, HttpClientError, HttpOptions, TlsVerification};
pub use retry::{RetryPolicy, is_transient_error, is_transient_status, retry_after};
pub use send::{SendError, read_body};
pub use text::tidy;
pub use tls::TlsProblem;
