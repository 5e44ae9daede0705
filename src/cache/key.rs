//! Who signs entries, and who is believed.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// Why a text is no key, or none can be made. It never has the text in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `DOMAIN:BASE64`.
    #[error("a trusted key is written DOMAIN:BASE64, as `forebay cache keygen` prints it")]
    Public,
    /// Not what `keygen` writes.
    #[error("the signing key is not what `forebay cache keygen` writes")]
    Private,
    /// A name that cannot stand in a key.
    #[error("{0:?} is no trust domain: it must be 1 to 64 of a-z 0-9 - _ ., and not begin with .")]
    Domain(String),
    /// The system gives no random numbers.
    #[error("the system has no random numbers to make a key of")]
    Random,
}

/// For whom entries are meant, and who may write them: `release`, `pull-request`. A key
/// belongs to one domain; whoever trusts only the keys of one reads nothing of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

impl Domain {
    /// The domain of entries without a signature. No key can belong to it.
    pub(super) fn unsigned() -> Self {
        Self("unsigned".to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let is_name = (1..=64).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('.')
            && text != Self::unsigned().0;
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err(KeyError::Domain(text.to_owned())),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The public half of a key (Ed25519, RFC 8032): `DOMAIN:BASE64` of its 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustedKey {
    /// Whose entries it proves.
    pub domain: Domain,
    bytes: [u8; 32],
}

impl TrustedKey {
    /// Whether `signature` is this key's over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.bytes)
            .verify(message, signature)
            .is_ok()
    }

    /// The key without its domain.
    pub(super) fn base64(&self) -> String {
        BASE64.encode(self.bytes)
    }
}

impl FromStr for TrustedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (domain, key) = text.trim().split_once(':').ok_or(KeyError::Public)?;
        let bytes = BASE64.decode(key).map_err(|_| KeyError::Public)?;
        Ok(Self {
            domain: domain.parse()?,
            bytes: bytes.try_into().map_err(|_| KeyError::Public)?,
        })
    }
}

impl fmt::Display for TrustedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.domain, self.base64())
    }
}

/// The private half: `forebay-signing-key:DOMAIN:BASE64` of its 32-byte seed. `Debug` shows
/// nothing of it, and it has no `Display`.
pub struct SigningKey {
    public: TrustedKey,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl SigningKey {
    const PREFIX: &'static str = "forebay-signing-key:";

    /// A new key of a domain.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate(domain: Domain) -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| KeyError::Random)?;
        Self::from_seed(domain, seed)
    }

    /// Reads what [`SigningKey::to_text`] gave.
    ///
    /// # Errors
    /// [`KeyError::Private`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let rest = text.trim().strip_prefix(Self::PREFIX);
        let (domain, seed) = rest
            .and_then(|rest| rest.split_once(':'))
            .ok_or(KeyError::Private)?;
        let seed = BASE64.decode(seed).map_err(|_| KeyError::Private)?;
        let seed = seed.try_into().map_err(|_| KeyError::Private)?;
        Self::from_seed(domain.parse()?, seed)
    }

    fn from_seed(domain: Domain, seed: [u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Private)?;
        let bytes = pair.public_key().as_ref().try_into();
        Ok(Self {
            public: TrustedKey {
                domain,
                bytes: bytes.map_err(|_| KeyError::Private)?,
            },
            seed,
            pair,
        })
    }

    /// The key as a text, for the one file that it is written to.
    pub fn to_text(&self) -> String {
        let seed = BASE64.encode(self.seed);
        format!("{}{}:{seed}\n", Self::PREFIX, self.public.domain)
    }

    /// The public half.
    pub fn public(&self) -> &TrustedKey {
        &self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({}, …)", self.public.domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_and_not_shown() {
        let key = SigningKey::generate("release".parse().unwrap()).unwrap();
        let again = SigningKey::parse(&key.to_text()).unwrap();
        assert_eq!(again.public(), key.public());
        let public: TrustedKey = key.public().to_string().parse().unwrap();
        assert_eq!(&public, key.public());
        assert!(public.verifies(b"text", &again.sign(b"text")));
        assert!(!public.verifies(b"other", &again.sign(b"text")));
        let secret = key.to_text();
        let secret = secret.trim().rsplit(':').next().unwrap();
        assert!(!format!("{key:?}").contains(secret));
        let error = SigningKey::parse(&format!("forebay-signing-key:{secret}")).unwrap_err();
        assert!(!format!("{error:?} {error}").contains(secret));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "release",
            "release:AAAA",
            "Release:",
            "unsigned:AAAA",
            ":",
        ] {
            assert!(text.parse::<TrustedKey>().is_err(), "{text:?}");
            assert!(SigningKey::parse(text).is_err(), "{text:?}");
        }
        assert!("unsigned".parse::<Domain>().is_err());
    }
}
