//! A local content-addressed store: immutable objects named by their BLAKE3
//! digest, and the recorded results ("realisations") of the recipes that made
//! them.
//!
//! The crate knows nothing of workflows, images or clouds, so that it can be
//! tested, and trusted, alone.

mod digest;

pub use digest::{Digesting, ObjectDigest, ParseDigestError, Sha256Digest};
