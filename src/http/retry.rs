//! When a request may be repeated, and how long to wait before.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};

/// How often and how patiently a failed request is repeated.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// The most attempts, the first included.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles each time, plus jitter.
    pub base_delay: Duration,
    /// The longest wait between two attempts.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            base_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(20),
        }
    }
}

impl RetryPolicy {
    /// The wait after `failed_attempts` failures: the server's wish if it sent
    /// one, otherwise exponential, with "equal jitter" so that machines that
    /// failed together do not return together.
    pub fn delay(&self, failed_attempts: u32, server_wish: Option<Duration>) -> Duration {
        if let Some(wish) = server_wish {
            return wish.min(self.max_delay);
        }
        let exponent = failed_attempts.saturating_sub(1).min(16);
        let full = self
            .base_delay
            .saturating_mul(1 << exponent)
            .min(self.max_delay);
        full.mul_f64(0.5 + 0.5 * random_fraction())
    }
}

/// Whether the same request may succeed later (facts of the protocols: 408, 429, 499, 5xx).
pub fn is_transient_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 499) || status.is_server_error()
}

/// Whether a request that got no answer may get one later. A certificate that
/// is not trusted now will not be trusted in a second either.
pub fn is_transient_error(error: &reqwest::Error) -> bool {
    !error.is_builder() && !error.is_redirect() && super::TlsProblem::among(error).is_none()
}

/// What `Retry-After` asks for. Besides whole seconds this accepts fractions
/// and the Go durations that one registry has sent (`12.5ms`); a date, or
/// anything else, counts as absent.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let (number, scale) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else {
        (text.strip_suffix('s').unwrap_or(text), 1.0)
    };
    let seconds = number.parse::<f64>().ok()? * scale;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A number in `[0, 1)`. The hasher's random keys are all the randomness that jitter needs.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn retry_after_accepts_what_registries_send() {
        assert_eq!(wish("3"), Some(Duration::from_secs(3)));
        assert_eq!(wish("12.5ms"), Some(Duration::from_micros(12_500)));
        assert_eq!(wish("2s"), Some(Duration::from_secs(2)));
        assert_eq!(wish("-1"), None);
        assert_eq!(wish("NaN"), None);
        assert_eq!(wish("Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }

    #[test]
    fn waits_grow_but_never_beyond_the_limit() {
        let policy = RetryPolicy::default();
        for failed_attempts in 1..40 {
            let delay = policy.delay(failed_attempts, None);
            assert!(delay >= policy.base_delay / 2);
            assert!(delay <= policy.max_delay);
        }
        assert_eq!(
            policy.delay(1, Some(Duration::from_secs(3_600))),
            policy.max_delay
        );
    }
}
