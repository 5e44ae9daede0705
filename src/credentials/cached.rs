//! Tokens kept until shortly before their end.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{CredentialError, Secret, TokenSource};

/// A token that was just made.
#[derive(Debug, Clone)]
pub(super) struct Minted {
    pub(super) token: Secret,
    /// How long it is good for; `None` if its maker does not say.
    pub(super) life: Option<Duration>,
}

/// Makes tokens, one request or process each.
#[async_trait]
pub(super) trait Mint: Send + Sync {
    fn describe(&self) -> String;
    async fn mint(&self) -> Result<Minted, CredentialError>;
}

/// Keeps the token of a [`Mint`]; whoever comes while one is made waits for it.
pub(super) struct Cached<M> {
    mint: M,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    token: Secret,
    /// From when on a new one is wanted, and from when on this one is of no use.
    renew_and_end: Option<(Instant, Instant)>,
}

/// A token is renewed when less than this is left of its life (or half of a short life).
const RENEW_BEFORE_END: Duration = Duration::from_secs(5 * 60);

impl<M: Mint> Cached<M> {
    pub(super) fn new(mint: M) -> Self {
        Self {
            mint,
            kept: Mutex::new(None),
        }
    }
}

#[async_trait]
impl<M: Mint> TokenSource for Cached<M> {
    fn describe(&self) -> String {
        self.mint.describe()
    }

    async fn token(&self) -> Result<Option<Secret>, CredentialError> {
        let mut kept = self.kept.lock().await;
        let mut usable = None;
        if let Some(kept) = &*kept {
            let now = Instant::now();
            match kept.renew_and_end {
                Some((renew, _)) if now < renew => return Ok(Some(kept.token.clone())),
                Some((_, end)) => usable = (now < end).then(|| kept.token.clone()),
                None => return Ok(Some(kept.token.clone())),
            }
        }
        let minted = match (self.mint.mint().await, usable) {
            (Ok(minted), _) => minted,
            // The old one is still good for a while.
            (Err(_), Some(token)) => return Ok(Some(token)),
            (Err(error), None) => return Err(error),
        };
        let renew_and_end = minted.life.and_then(|life| {
            let now = Instant::now();
            let end = now.checked_add(life)?;
            Some((end - RENEW_BEFORE_END.min(life / 2), end))
        });
        *kept = Some(Kept {
            token: minted.token.clone(),
            renew_and_end,
        });
        Ok(Some(minted.token))
    }

    fn remaining(&self) -> Option<Duration> {
        let kept = self.kept.try_lock().ok()?;
        let (_, end) = kept.as_ref()?.renew_and_end?;
        Some(end.saturating_duration_since(Instant::now()))
    }

    async fn invalidate(&self) {
        *self.kept.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Makes `1`, `2`, … of one life each; fails from the third on.
    struct Counting {
        made: AtomicU32,
        life: Option<Duration>,
    }

    #[async_trait]
    impl Mint for Counting {
        fn describe(&self) -> String {
            "a counter".to_owned()
        }

        async fn mint(&self) -> Result<Minted, CredentialError> {
            match self.made.fetch_add(1, Ordering::SeqCst) + 1 {
                number @ 1..=2 => Ok(Minted {
                    token: Secret::new(number.to_string()),
                    life: self.life,
                }),
                _ => Err(CredentialError::Refused {
                    source_name: self.describe(),
                    problem: "it is spent".to_owned(),
                }),
            }
        }
    }

    async fn tokens(life: Option<Duration>) -> Vec<String> {
        let cached = Cached::new(Counting {
            made: AtomicU32::new(0),
            life,
        });
        let mut tokens = Vec::new();
        for round in 0..4 {
            if round == 2 {
                cached.invalidate().await;
            }
            tokens.push(cached.token().await.unwrap().unwrap().reveal().to_owned());
        }
        tokens
    }

    #[tokio::test]
    async fn a_token_is_kept_until_it_is_refused() {
        let hour = Some(Duration::from_secs(3_600));
        assert_eq!(tokens(hour).await, ["1", "1", "2", "2"]);
        assert_eq!(tokens(None).await, ["1", "1", "2", "2"]);
    }

    #[tokio::test]
    async fn a_token_without_life_is_made_anew_and_a_failure_is_told() {
        let cached = Cached::new(Counting {
            made: AtomicU32::new(0),
            life: Some(Duration::ZERO),
        });
        assert_eq!(cached.token().await.unwrap().unwrap().reveal(), "1");
        assert_eq!(cached.token().await.unwrap().unwrap().reveal(), "2");
        let error = cached.token().await.unwrap_err();
        assert_eq!(error.to_string(), "a counter gave no token: it is spent");
    }
}
