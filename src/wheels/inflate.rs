//! Inflates an entry of an archive and proves that it is what the archive says.

use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};

use super::archive::{Entry, Method, ReadAt};

/// Inflates and checks one entry; see [`Archive::reader`](super::Archive::reader).
pub struct EntryReader<'a, S> {
    source: &'a S,
    entry: &'a Entry,
    inflate: Option<Box<Decompress>>,
    input: Vec<u8>,
    input_at: usize,
    /// Compressed bytes read from the source.
    taken: u64,
    /// Inflated bytes given out.
    given: u64,
    crc32: crc32fast::Hasher,
    finished: bool,
}

impl<'a, S: ReadAt> EntryReader<'a, S> {
    /// Starts at the entry's first byte.
    pub(super) fn new(source: &'a S, entry: &'a Entry) -> Self {
        Self {
            source,
            entry,
            inflate: (entry.method == Method::Deflated).then(|| Box::new(Decompress::new(false))),
            input: Vec::new(),
            input_at: 0,
            taken: 0,
            given: 0,
            crc32: crc32fast::Hasher::new(),
            finished: false,
        }
    }

    fn lies(&self, about: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{:?} lies about its {about}", self.entry.path),
        )
    }

    /// Reads more compressed bytes if all were used; false if there are no more.
    fn fill(&mut self) -> io::Result<bool> {
        if self.input_at < self.input.len() {
            return Ok(true);
        }
        let left = self.entry.compressed_size - self.taken;
        let length = usize::try_from(left.min(64 << 10)).unwrap_or(0);
        self.input.resize(length, 0);
        self.input_at = 0;
        self.source
            .read_exact_at(&mut self.input, self.entry.offset + self.taken)?;
        self.taken += length as u64;
        Ok(length > 0)
    }

    fn finish(&mut self) -> io::Result<()> {
        let all_used =
            self.taken == self.entry.compressed_size && self.input_at == self.input.len();
        if !all_used || self.given != self.entry.size {
            return Err(self.lies("size"));
        }
        if std::mem::take(&mut self.crc32).finalize() != self.entry.crc32 {
            return Err(self.lies("content (CRC-32)"));
        }
        self.finished = true;
        Ok(())
    }
}

impl<S: ReadAt> Read for EntryReader<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.finished || buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let has_input = self.fill()?;
            let input = self.input.get(self.input_at..).unwrap_or_default();
            let (used, produced, ended) = match &mut self.inflate {
                None => {
                    let length = input.len().min(buffer.len());
                    let (Some(to), Some(from)) = (buffer.get_mut(..length), input.get(..length))
                    else {
                        return Ok(0);
                    };
                    to.copy_from_slice(from);
                    (length, length, !has_input)
                }
                Some(inflate) => {
                    let before = (inflate.total_in(), inflate.total_out());
                    let status = inflate
                        .decompress(input, buffer, FlushDecompress::None)
                        .map_err(|_| self.lies("content (DEFLATE)"))?;
                    let Some(inflate) = &self.inflate else {
                        return Ok(0);
                    };
                    let used = usize::try_from(inflate.total_in() - before.0).unwrap_or(0);
                    let produced = usize::try_from(inflate.total_out() - before.1).unwrap_or(0);
                    let ended = status == Status::StreamEnd;
                    if !ended && used == 0 && produced == 0 && !has_input {
                        return Err(self.lies("size"));
                    }
                    (used, produced, ended)
                }
            };
            self.input_at += used;
            self.given += produced as u64;
            if self.given > self.entry.size {
                return Err(self.lies("size"));
            }
            self.crc32
                .update(buffer.get(..produced).unwrap_or_default());
            if ended {
                self.finish()?;
            }
            if produced > 0 || ended {
                return Ok(produced);
            }
        }
    }
}
