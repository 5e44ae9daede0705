//! See [`crate::fuzzing`].
#![allow(clippy::unwrap_used, missing_docs)]

use super::marshal::canonical;

/// Code of any version is refused, or comes into the one form that stays as it is.
pub fn marshal(bytes: &[u8]) {
    let Some((minor, code)) = bytes.split_first() else {
        return;
    };
    let version = (3, 8 + minor % 7);
    if let Ok(once) = canonical(code, version) {
        assert_eq!(canonical(&once, version).unwrap(), once);
    }
}
