//! See [`crate::fuzzing`].
#![allow(missing_docs)]

use std::path::Path;

use super::index;

/// The index of a layout is refused, or what it names is read.
pub(in crate::registry) fn index(layout: &Path) {
    let _ = (index::tags(layout), index::manifests(layout));
}
