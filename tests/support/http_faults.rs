//! What tests of faults over HTTP have in common: a client that soon repeats and soon gives
//! up, and tokens that run out.
#![allow(dead_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use forebay::credentials::{CredentialError, Secret, TokenSource};
use forebay::http::{HttpClient, HttpOptions, RetryPolicy};

/// Three attempts, milliseconds apart; what stands still for 300 ms is given up.
pub(crate) fn impatient() -> HttpClient {
    HttpClient::new(&HttpOptions {
        retry: RetryPolicy {
            attempts: 3,
            base_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(2),
        },
        stall_timeout: Duration::from_millis(300),
        ..HttpOptions::default()
    })
    .unwrap()
}

/// Gives `token-0` until it is told to forget it, then `token-1`: several requests at once may
/// all find that the first has run out.
#[derive(Default)]
pub(crate) struct Tokens(AtomicUsize);

impl Tokens {
    /// How often it was told to forget one.
    pub(crate) fn forgotten(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl TokenSource for Tokens {
    fn describe(&self) -> String {
        "tester".to_owned()
    }

    async fn token(&self) -> Result<Option<Secret>, CredentialError> {
        let number = self.forgotten().min(1);
        Ok(Some(Secret::new(format!("token-{number}"))))
    }

    async fn invalidate(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
