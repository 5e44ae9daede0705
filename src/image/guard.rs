//! Reads tar archives of strangers without letting their headers fill the memory.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// Bytes that one layer may inflate to.
pub(super) const MAX_LAYER: u64 = 16 << 30;
/// Bytes that the headers of one entry may have, long names and PAX records included:
/// the archive's reader holds those in memory.
const MAX_HEADERS: u64 = 64 << 10;

/// Fails when more is read than is allowed.
pub(super) struct Guarded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

/// What may be read before the next entry begins.
pub(super) struct Allowance(Rc<Cell<u64>>);

impl<R> Guarded<R> {
    pub(super) fn new(inner: R) -> (Self, Allowance) {
        let left = Rc::new(Cell::new(MAX_HEADERS));
        let allowance = Allowance(Rc::clone(&left));
        (Self { inner, left }, allowance)
    }
}

impl Allowance {
    /// An entry's headers are read: what is read next is the rest of the entry, then the
    /// next one's headers.
    ///
    /// # Errors
    /// A header without a valid size.
    pub(super) fn enter<R: Read>(&self, entry: &tar::Entry<'_, R>) -> io::Result<()> {
        // A sparse file's own size says nothing of how much of it is in the archive.
        let header_size = entry.header().entry_size()?;
        let content = match entry.header().entry_type() {
            tar::EntryType::GNUSparse => header_size,
            _ => header_size.max(entry.size()),
        };
        self.0.set(content.saturating_add(MAX_HEADERS));
        Ok(())
    }

    /// What is read from here on is kept by nobody.
    pub(super) fn all(&self) {
        self.0.set(u64::MAX);
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        match self.left.get().checked_sub(length as u64) {
            Some(left) => self.left.set(left),
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("an entry has more than {MAX_HEADERS} bytes of headers"),
                ));
            }
        }
        Ok(length)
    }
}

impl<R: Seek> Seek for Guarded<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}
