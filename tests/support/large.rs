//! A blob of any size that takes no memory and does not compress.

use std::io::Read;

use forebay::oci::{BlobSource, Descriptor, MediaType, Sha256Digest};
use sha2::Digest as _;

/// Pseudo-random bytes, the same for the same seed.
pub(crate) struct LargeBlob {
    seed: u64,
    descriptor: Descriptor,
}

impl LargeBlob {
    pub(crate) fn new(seed: u64, size: u64) -> Self {
        let mut hasher = sha2::Sha256::new();
        let mut reader = Bytes::new(seed, size);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let amount = reader.read(&mut buffer).unwrap();
            if amount == 0 {
                break;
            }
            hasher.update(&buffer[..amount]);
        }
        let hex: String = hasher
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let digest: Sha256Digest = format!("sha256:{hex}").parse().unwrap();
        Self {
            seed,
            descriptor: Descriptor {
                media_type: MediaType::new(MediaType::OCI_LAYER_GZIP),
                digest,
                size,
                annotations: Default::default(),
            },
        }
    }
}

impl BlobSource for LargeBlob {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Bytes::new(self.seed, self.descriptor.size)))
    }
}

/// One block of pseudo-random bytes again and again, each time with a number in it.
struct Bytes {
    block: Vec<u8>,
    number: u64,
    position: usize,
    left: u64,
}

impl Bytes {
    fn new(seed: u64, size: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let block = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        Self {
            block: block.take(1 << 16 >> 3).flatten().collect(),
            number: 0,
            position: 0,
            left: size,
        }
    }
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.position == self.block.len() {
            self.number += 1;
            self.block[..8].copy_from_slice(&self.number.to_le_bytes());
            self.position = 0;
        }
        let rest = &self.block[self.position..];
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX);
        let amount = rest.len().min(buffer.len()).min(limit);
        buffer[..amount].copy_from_slice(&rest[..amount]);
        self.position += amount;
        self.left -= amount as u64;
        Ok(amount)
    }
}
