//! See [`crate::fuzzing`].

use std::cell::RefCell;
use std::fs;

use tempfile::TempDir;

use crate::object::ObjectInfo;
use crate::pack::{self, ENTRY_SIZE, HEADER_SIZE};
use crate::{Artifact, RootName, Store, StoreError};

thread_local! {
    /// Made once: making a store takes longer than importing a small file.
    static STORE: RefCell<(TempDir, Store, u64)> = RefCell::new({
        let directory = TempDir::new().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        (directory, store, 0)
    });
}

/// A file that is imported is refused, and nothing is kept of it; or all that it names is there,
/// and the same when it is exported and imported again.
pub fn archive(bytes: &[u8]) {
    check(bytes);
    // Any entries, under the right digest of the whole.
    let count = bytes.first().map_or(0, |first| usize::from(first % 8));
    let (entries, bodies) = bytes
        .split_at_checked(count * ENTRY_SIZE as usize)
        .unwrap_or_default();
    check(&pack::assemble(bodies, entries));
    // Any bodies, under the right digests of each: an odd first byte makes a record of it.
    let mut entries = Vec::new();
    let mut bodies = Vec::new();
    for part in bytes.split(|byte| *byte == 0) {
        let Some((kind, body)) = part.split_first() else {
            continue;
        };
        let info = ObjectInfo::of(body);
        entries.push(1 + kind % 2);
        entries.extend_from_slice(info.digest.as_bytes());
        entries.extend_from_slice(info.sha256.as_bytes());
        entries.extend_from_slice(&(HEADER_SIZE + bodies.len() as u64).to_le_bytes());
        entries.extend_from_slice(&info.size.to_le_bytes());
        bodies.extend_from_slice(body);
    }
    check(&pack::assemble(&bodies, &entries));
}

fn check(bytes: &[u8]) {
    STORE.with_borrow_mut(|(directory, store, count)| {
        *count += 1;
        let path = directory.path().join("archive");
        fs::write(&path, bytes).unwrap();
        let name: RootName = format!("imported/{count}").parse().unwrap();
        let report = match store.import(&path, Some(&name)) {
            Ok(report) => report,
            Err(StoreError::Pack { .. } | StoreError::NewerPack { .. }) => {
                assert_eq!(store.inner().index.root(&name).unwrap(), None);
                return;
            }
            Err(error) => panic!("{error:?}"),
        };
        let root = store.inner().index.root(&name).unwrap().unwrap();
        assert!(root.iter().eq(&unique(&report.objects)));
        let mut size = 0;
        for digest in &report.objects {
            size += store.read(digest).unwrap().len() as u64;
        }
        assert_eq!(size, report.bytes);
        for key in &report.realisations {
            assert!(store.inner().index.realisation(key).unwrap().is_some());
        }
        let exported = store.export(&Artifact::Root(name), &path).unwrap();
        assert!(root.iter().eq(&exported.objects));
        assert_eq!(store.import(&path, None).unwrap(), exported);
    });
}

fn unique<T: Clone + PartialEq>(sorted: &[T]) -> Vec<T> {
    let mut unique = sorted.to_vec();
    unique.dedup();
    unique
}
