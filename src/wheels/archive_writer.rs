//! Writes zip archives whose bytes depend on nothing but what is in them: wheels
//! for `dist/`, and the `.pyc` files that layers are spliced from.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// 1980-01-01 00:00:00, the earliest that the format can say.
const DOS_DATE: u16 = (1 << 5) | 1;
/// Names are UTF-8 (APPNOTE.TXT, section 4.4.4).
const UTF8: u16 = 1 << 11;

/// Writes one archive, entry after entry.
#[derive(Debug)]
pub struct ArchiveWriter<W: Write> {
    out: W,
    position: u64,
    directory: Vec<u8>,
    entries: u16,
    compression: Compression,
}

fn too_large<E>(_: E) -> io::Error {
    io::Error::other("a zip archive has room for 65,535 files and 4 GiB")
}

impl<W: Write> ArchiveWriter<W> {
    /// Starts an archive whose files are deflated by zlib-rs at `level`, from 0 (not at all) to 9.
    pub fn new(out: W, level: u32) -> Self {
        Self {
            out,
            compression: Compression::new(level.min(9)),
            position: 0,
            directory: Vec::new(),
            entries: 0,
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Adds a file.
    ///
    /// # Errors
    /// A failure to write, or more than the format has room for.
    pub fn add(&mut self, path: &str, bytes: &[u8], executable: bool) -> io::Result<()> {
        let mut encoder = DeflateEncoder::new(Vec::new(), self.compression);
        encoder.write_all(bytes)?;
        let deflated = encoder.finish()?;
        let offset = u32::try_from(self.position).map_err(too_large)?;
        let size = u32::try_from(bytes.len()).map_err(too_large)?;
        let deflated_size = u32::try_from(deflated.len()).map_err(too_large)?;
        let name_length = u16::try_from(path.len()).map_err(too_large)?;
        self.entries = self.entries.checked_add(1).ok_or_else(|| too_large(()))?;

        // What both headers have: version, flags, method, time, date, CRC-32, sizes, lengths.
        let mut common = Vec::new();
        for value in [20, UTF8, 8, 0, DOS_DATE] {
            common.extend_from_slice(&value.to_le_bytes());
        }
        for value in [crc32fast::hash(bytes), deflated_size, size] {
            common.extend_from_slice(&value.to_le_bytes());
        }
        common.extend_from_slice(&name_length.to_le_bytes());
        common.extend_from_slice(&[0, 0]);

        self.put(b"PK\x03\x04")?;
        self.put(&common)?;
        self.put(path.as_bytes())?;
        self.put(&deflated)?;

        let mode: u32 = if executable { 0o100_755 } else { 0o100_644 };
        let directory = &mut self.directory;
        directory.extend_from_slice(b"PK\x01\x02");
        // Made on Unix, by version 2.0 of the format.
        directory.extend_from_slice(&[20, 3]);
        directory.extend_from_slice(&common);
        // No comment, first disk, no internal attributes.
        directory.extend_from_slice(&[0; 6]);
        directory.extend_from_slice(&(mode << 16).to_le_bytes());
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(path.as_bytes());
        Ok(())
    }

    /// Writes the directory and gives the writer back.
    ///
    /// # Errors
    /// A failure to write, or more than the format has room for.
    pub fn finish(mut self) -> io::Result<W> {
        let offset = u32::try_from(self.position).map_err(too_large)?;
        let directory = std::mem::take(&mut self.directory);
        let size = u32::try_from(directory.len()).map_err(too_large)?;
        self.put(&directory)?;
        self.put(b"PK\x05\x06\0\0\0\0")?;
        self.put(&self.entries.to_le_bytes())?;
        self.put(&self.entries.to_le_bytes())?;
        self.put(&size.to_le_bytes())?;
        self.put(&offset.to_le_bytes())?;
        self.put(&[0; 2])?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::Archive;
    use super::*;

    #[test]
    fn other_readers_see_what_was_written() {
        let files = [
            ("a/b.py", "x = 1\n".repeat(100), false),
            ("ä/run", String::new(), true),
        ];
        let write = || {
            let mut writer = ArchiveWriter::new(Vec::new(), 6);
            for (path, text, executable) in &files {
                writer.add(path, text.as_bytes(), *executable).unwrap();
            }
            writer.finish().unwrap()
        };
        let bytes = write();
        assert_eq!(bytes, write());
        let own = Archive::open(bytes.clone()).unwrap();
        let mut other = zip::ZipArchive::new(io::Cursor::new(bytes)).unwrap();
        assert_eq!((own.entries().len(), other.len()), (2, 2));
        for (path, text, executable) in &files {
            let entry = own.entry(path).unwrap();
            assert_eq!(own.read(entry, 1 << 20).unwrap(), text.as_bytes());
            assert_eq!(entry.executable, *executable);
            let mut entry = other.by_name(path).unwrap();
            assert_eq!(
                entry.unix_mode(),
                Some(if *executable { 0o100_755 } else { 0o100_644 })
            );
            let mut read = String::new();
            entry.read_to_string(&mut read).unwrap();
            assert_eq!(read, *text);
        }
    }
}
