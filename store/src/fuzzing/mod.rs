//! What the targets of `fuzz/` call: each takes any bytes, makes of them what a damaged
//! disk or a stranger might hand to the store, and panics if a promise does not hold.
//!
//! The seeds of the fuzzer, and the inputs that it has found, are read by the test below too.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod archive;
mod index_rows;

pub use archive::archive;
pub use index_rows::index_rows;

use std::io::Cursor;
use std::path::Path;

use crate::ObjectDigest;
use crate::pack::{self, ENTRY_SIZE};
use crate::record::{HEAD_SIZE, Record, RecordHead};
use crate::scan::record::ScanRecord;

/// An index of a pack is refused, or says of every entry where in the file its bytes are.
pub fn pack(bytes: &[u8]) {
    check_pack(bytes);
    // Nobody guesses the digest that ends a pack. So: any entries, under the right one.
    let count = bytes.first().map_or(0, |first| usize::from(first % 16));
    let (index, bodies) = bytes
        .split_at_checked(count * ENTRY_SIZE as usize)
        .unwrap_or_default();
    check_pack(&pack::assemble(bodies, index));
}

fn check_pack(file: &[u8]) {
    let Ok(Ok((name, entries))) = pack::read_index(&mut Cursor::new(file), |_| true) else {
        return;
    };
    let footer = file.len() - 48;
    let start = footer - entries.len() * ENTRY_SIZE as usize;
    for entry in &entries {
        let end = entry.offset + entry.info.size;
        assert!(entry.offset >= 16 && end <= start as u64, "{entry:?}");
    }
    let (index, again) = pack::encode_index(&entries, start as u64);
    assert_eq!(
        (again, index.as_slice()),
        (name, &file[start..file.len() - 32])
    );
}

/// A record is refused, or is the same when it is written and read again; its head is its own.
pub fn record(bytes: &[u8]) {
    let Ok(record) = Record::from_json(bytes) else {
        return;
    };
    let written = record.to_json().unwrap();
    assert_eq!(Record::from_json(&written).unwrap(), record);
    let start = &written[..written.len().min(HEAD_SIZE)];
    let head = RecordHead::from_start(start).unwrap();
    assert_eq!(head.sequence, record.sequence());
    match &record {
        Record::Realisation { key, .. } => assert_eq!((head.key, head.name), (Some(*key), None)),
        Record::Root { name, .. } => assert_eq!((head.key, head.name.as_ref()), (None, Some(name))),
    }
}

/// A record of a scan is as none, or is the same when it is written and read again.
pub fn scan_record(bytes: &[u8]) {
    let directory = Path::new("/d");
    check_scan_record(bytes, directory);
    // Any files, under the right header and digest.
    let mut whole = ScanRecord::default().encode(directory);
    whole.truncate(16 + 4 + 2);
    whole.extend_from_slice(bytes);
    whole.extend_from_slice(ObjectDigest::of(&whole).as_bytes());
    check_scan_record(&whole, directory);
}

fn check_scan_record(bytes: &[u8], directory: &Path) {
    let Some(record) = ScanRecord::decode(bytes, directory) else {
        return;
    };
    let written = record.encode(directory);
    assert_eq!(ScanRecord::decode(&written, directory), Some(record));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Every seed of a target; there must be some.
    fn replay(target: &str, run: impl Fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/seeds")
            .join(target);
        let seeds = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let read = seeds.inspect(|path| run(&fs::read(path).unwrap()));
        assert!(read.count() > 0, "{}", folder.display());
    }

    #[test]
    fn what_the_fuzzer_has_found_does_no_harm() {
        replay("store_archive", archive);
        replay("store_index_rows", index_rows);
        replay("store_pack", pack);
        replay("store_record", record);
        replay("store_scan_record", scan_record);
    }
}
