//! The program's one HTTP stack: one client, one TLS provider, one rule for retries.

mod client;
mod retry;

pub use client::{HttpClient, HttpClientError, HttpOptions};
pub use retry::{RetryPolicy, is_transient_error, is_transient_status, retry_after};
