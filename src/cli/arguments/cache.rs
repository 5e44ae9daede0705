//! Where others have built.

use clap::Args;

/// The caches.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct CacheArguments {
    /// Take what others have built from this cache: gs://BUCKET[/FOLDER], s3://…, az://…, https://HOST/FOLDER (WebDAV) or file://FOLDER; may be repeated, and is asked in that order [default: $FOREBAY_CACHE, else [tool.forebay] cache]
    #[arg(long, value_name = "URL", help_heading = "Cache")]
    pub(in crate::cli) cache: Vec<String>,

    /// Bring what is built to the first cache that can be written; by itself this happens where a signing key is at hand ($FOREBAY_CACHE_SIGNING_KEY, $FOREBAY_CACHE_SIGNING_KEY_FILE)
    #[arg(long, help_heading = "Cache")]
    pub(in crate::cli) cache_write: bool,

    /// Believe entries without a signature: whoever can write to the cache then decides what is deployed
    #[arg(long, help_heading = "Cache")]
    pub(in crate::cli) cache_unsigned: bool,
}
