//! What is inside of a layer, however it is compressed.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// What gzip files begin with (RFC 1952).
const GZIP: &[u8] = &[0x1f, 0x8b];
/// What zstd frames begin with (RFC 8878).
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// How something is compressed, as its first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compressed {
    /// Not at all.
    No,
    /// As members of gzip.
    Gzip,
    /// As frames of zstd.
    Zstd,
}

impl Compressed {
    /// By the four bytes that it begins with, or all if there are fewer.
    pub(super) fn of(start: &[u8]) -> Self {
        if start.starts_with(GZIP) {
            Self::Gzip
        } else if start.starts_with(ZSTD) {
            Self::Zstd
        } else {
            Self::No
        }
    }
}

/// The archive in a layer. zstd's window is at most 128 MiB, as its decoder has it.
///
/// # Errors
/// The reader's.
pub(super) fn decompressed<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(1 << 17, reader);
    Ok(match Compressed::of(reader.fill_buf()?) {
        Compressed::No => Box::new(reader),
        Compressed::Gzip => Box::new(MultiGzDecoder::new(reader)),
        Compressed::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
    })
}
