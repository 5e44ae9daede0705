//! A bucket in which machines leave what they built for each other: a job on an empty
//! machine takes what an earlier one made. There is no server; the rules are these.
//!
//! ```text
//! [FOLDER/]forebay-cache/v1/entries/DOMAIN/RECIPE    what recipes gave; signed (`entry.rs`)
//! [FOLDER/]forebay-cache/v1/objects/AB/DIGEST.PART   bytes, in parts of 16 MiB (`part.rs`)
//! [FOLDER/]forebay-cache/v1/mark.json                what the collector will delete (`collect.rs`)
//! ```
//!
//! An *entry* is found by a recipe's key, and says what one or many recipes gave. There are
//! three kinds, all of one form:
//!
//! - of a **build**: its recipe is the digest of the project's sources, the environment and the
//!   Python. It names everything that such a build looks up, and has the small documents among
//!   it inside, so that one request answers for a build whose sources have been built before;
//! - the **latest** build of an environment: where the sources are new, most of what they need
//!   is in there, with one more request;
//! - of a **single recipe**, which is asked for if it is in neither.
//!
//! Objects are lazy: a realisation counts as had when an entry that is trusted names its
//! outputs, and their bytes come when somebody reads them. So an image that the registry has
//! is never downloaded.
//!
//! *Trust.* Entries are signed with Ed25519 keys, each of which belongs to one *domain*. A
//! reader names the keys that it trusts, and so the domains: a release job that trusts only the
//! key of `release` never reads what a pull request's job wrote, even if that job may write to
//! the bucket. Objects need no signature, since their digest is in a signed entry. Without a
//! signature only a folder counts that belongs to the user and that nobody else may write, or a
//! cache for which the user says so.
//!
//! *Faults.* A cache never makes a build fail. What is missing, damaged or not to be trusted
//! counts as not there, is built, and is uploaded again by whoever may write; nothing negative
//! is kept. A cache that fails or is slow is not asked again in that run. All of this comes to
//! one warning.
//!
//! *Order of writes*: objects, then the entries that name them, then a look at the collector's
//! mark: what it condemned of all that this push relies on is written again, which changes its
//! generation (on S3, where the same bytes have the same, by a stamp: `part.rs`), and the
//! collector deletes only the generation that it saw. Where a server does not hold to that
//! condition (many of WebDAV do not), nothing is collected.

mod client;
mod collect;
mod entry;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod key;
mod known;
mod location;
mod lookup;
mod mark;
mod part;
mod patience;
mod push;
mod remote;
mod settings;
mod source;
#[cfg(test)]
mod tests;

pub use client::{Cache, Closure};
pub use collect::{CollectOptions, CollectReport};
pub use entry::{Entry, EntryError, Object, Statement};
pub use key::{Domain, KeyError, SigningKey, TrustedKey};
pub use location::{CacheLocation, ParseCacheError};
pub use patience::Patience;
pub use push::PushReport;
pub use remote::{CacheError, OpenBucket, describe};
pub use settings::{CacheOptions, Trust};
