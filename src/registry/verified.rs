//! Bytes that are believed only once their digest is.

use std::io::{self, Read};

use sha2::Digest as _;

use super::RegistryError;
use crate::oci::{Descriptor, Sha256Digest};

/// Compares the bytes that pass with what a descriptor promises.
pub(super) struct Verifier {
    descriptor: Descriptor,
    hasher: sha2::Sha256,
    size: u64,
}

impl Verifier {
    pub(super) fn new(descriptor: &Descriptor) -> Self {
        Self {
            descriptor: descriptor.clone(),
            hasher: sha2::Sha256::new(),
            size: 0,
        }
    }

    /// Takes the next bytes; more than promised is an error at once.
    pub(super) fn update(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        self.size += bytes.len() as u64;
        if self.size > self.descriptor.size {
            return Err(self.wrong_size("at least "));
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Judges the whole, at its end.
    pub(super) fn finish(&mut self) -> Result<(), Damage> {
        if self.size != self.descriptor.size {
            return Err(self.wrong_size(""));
        }
        let digest = Sha256Digest::from_bytes(self.hasher.finalize_reset().into());
        if digest == self.descriptor.digest {
            Ok(())
        } else {
            Err(Damage {
                what: format!("the blob {}", self.descriptor.digest),
                expected: self.descriptor.digest.to_string(),
                actual: digest.to_string(),
            })
        }
    }

    fn wrong_size(&self, qualifier: &str) -> Damage {
        Damage {
            what: format!("the blob {}", self.descriptor.digest),
            expected: format!("{} bytes", self.descriptor.size),
            actual: format!("{qualifier}{} bytes", self.size),
        }
    }
}

/// Bytes that are not what was promised; travels through readers as an [`io::Error`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what} is damaged: expected {expected}, got {actual}")]
pub(super) struct Damage {
    what: String,
    expected: String,
    actual: String,
}

impl From<Damage> for RegistryError {
    fn from(damage: Damage) -> Self {
        Self::Damaged {
            what: damage.what,
            expected: damage.expected,
            actual: damage.actual,
        }
    }
}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> Self {
        Self::new(io::ErrorKind::InvalidData, damage)
    }
}

/// A reader whose last bytes are given out only if the whole is what was promised.
pub(super) struct VerifiedReader<R> {
    reader: R,
    verifier: Verifier,
    remaining: u64,
    done: bool,
}

impl<R: Read> VerifiedReader<R> {
    pub(super) fn new(reader: R, descriptor: &Descriptor) -> Self {
        Self {
            reader,
            verifier: Verifier::new(descriptor),
            remaining: descriptor.size,
            done: false,
        }
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.done || buffer.is_empty() {
            return Ok(0);
        }
        let amount = read_some(&mut self.reader, buffer)?;
        let (bytes, _) = buffer.split_at(amount);
        self.verifier.update(bytes)?;
        self.remaining = self.remaining.saturating_sub(amount as u64);
        if amount == 0 || self.remaining == 0 {
            // Nothing may follow the promised size.
            if amount > 0 && read_some(&mut self.reader, &mut [0])? > 0 {
                self.verifier.update(&[0])?;
            }
            self.verifier.finish()?;
            self.done = true;
        }
        Ok(amount)
    }
}

/// One read, past interruptions.
pub(super) fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::MediaType;

    fn read(promised: &[u8], served: &[u8]) -> io::Result<Vec<u8>> {
        let descriptor = Descriptor::of(MediaType::new("x"), promised);
        let mut bytes = Vec::new();
        VerifiedReader::new(served, &descriptor).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn only_the_promised_bytes_are_read_to_their_end() {
        assert_eq!(read(b"layer", b"layer").unwrap(), b"layer");
        assert_eq!(read(b"", b"").unwrap(), b"");
        for served in [&b"Layer"[..], b"laye", b"layers", b""] {
            assert_eq!(
                read(b"layer", served).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
        assert!(read(b"", b"x").is_err());
    }
}
