//! gzip members made without an encoder (RFC 1952): their bytes depend on
//! nothing but what is in them, so that no compressor's next version can change
//! a layer's digest.

/// Every member's header: DEFLATE, no time, no name, unknown operating system.
pub(super) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// The bytes of one stored DEFLATE block at most (RFC 1951, section 3.2.4).
pub(super) const STORED_BLOCK: usize = 65_535;

/// The five bytes before a stored block of `length` (at most [`STORED_BLOCK`]) bytes.
pub(super) fn stored_block_header(length: usize, last: bool) -> [u8; 5] {
    let [low, high] = u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
    [u8::from(last), low, high, !low, !high]
}

/// What ends a member: CRC-32 and length (modulo 2³²) of the inflated bytes.
pub(super) fn trailer(crc32: u32, size: u64) -> [u8; 8] {
    let mut trailer = [0; 8];
    let (crc_field, size_field) = trailer.split_at_mut(4);
    crc_field.copy_from_slice(&crc32.to_le_bytes());
    // Truncation is what the format asks for.
    #[allow(clippy::cast_possible_truncation)]
    size_field.copy_from_slice(&(size as u32).to_le_bytes());
    trailer
}

/// Appends a whole member that holds `bytes` uncompressed.
pub(super) fn write_stored_member(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&HEADER);
    let mut blocks = bytes.chunks(STORED_BLOCK).peekable();
    if blocks.peek().is_none() {
        out.extend_from_slice(&stored_block_header(0, true));
    }
    while let Some(block) = blocks.next() {
        out.extend_from_slice(&stored_block_header(block.len(), blocks.peek().is_none()));
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&trailer(crc32fast::hash(bytes), bytes.len() as u64));
}
