//! Where the JSON API is.

use url::Url;

use super::super::BucketError;

/// The address of the service, or of an emulator.
#[derive(Debug, Clone)]
pub struct Endpoint {
    base: Url,
    emulator: bool,
}

impl Endpoint {
    const SERVICE: &'static str = "https://storage.googleapis.com";

    /// The service itself, or what `STORAGE_EMULATOR_HOST` names.
    ///
    /// # Errors
    /// See [`Endpoint::emulator`].
    pub fn from_environment() -> Result<Self, BucketError> {
        match std::env::var("STORAGE_EMULATOR_HOST") {
            Ok(address) if !address.is_empty() => Self::emulator(&address),
            _ => Self::parse(Self::SERVICE, false),
        }
    }

    /// The service behind another address, such as a private endpoint. Tokens are sent there.
    ///
    /// # Errors
    /// See [`Endpoint::emulator`].
    pub fn service_at(url: &str) -> Result<Self, BucketError> {
        Self::parse(url, false)
    }

    /// An emulator at `HOST:PORT` or at a URL. It never sees a token.
    ///
    /// # Errors
    /// [`BucketError::EmulatorAddress`] if `address` is neither.
    pub fn emulator(address: &str) -> Result<Self, BucketError> {
        if address.contains("://") {
            Self::parse(address, true)
        } else {
            Self::parse(&format!("http://{address}"), true)
        }
    }

    fn parse(text: &str, emulator: bool) -> Result<Self, BucketError> {
        let invalid = || BucketError::EmulatorAddress {
            value: text.to_owned(),
        };
        let base = Url::parse(text).map_err(|_| invalid())?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(invalid());
        }
        Ok(Self { base, emulator })
    }

    pub(super) fn is_emulator(&self) -> bool {
        self.emulator
    }

    /// `path` must start with a slash and be escaped.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulators_address_comes_with_or_without_a_scheme() {
        for address in [
            "127.0.0.1:4443",
            "http://127.0.0.1:4443",
            "http://127.0.0.1:4443/",
        ] {
            let url = Endpoint::emulator(address)
                .unwrap()
                .url("/storage/v1/b/x/o/a%2Fb");
            assert_eq!(url.as_str(), "http://127.0.0.1:4443/storage/v1/b/x/o/a%2Fb");
        }
        for address in ["", "ftp://x", "http://", "a b"] {
            assert!(Endpoint::emulator(address).is_err(), "{address:?}");
        }
    }
}
