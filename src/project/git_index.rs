//! Reads which files git tracks, without git.

/// The paths in git's index, versions 2 and 3 (`gitformat-index`). An item is `None` where the
/// index has what is not read here.
pub(super) struct IndexPaths<'a> {
    bytes: &'a [u8],
    position: usize,
    left: u32,
}

impl<'a> IndexPaths<'a> {
    /// Bytes of an entry before its path, with SHA-1.
    const FIXED: usize = 62;
    const CHECKSUM: usize = 20;

    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let version = number(bytes, 4)?;
        if bytes.get(..4)? != b"DIRC" || !matches!(version, 2 | 3) {
            return None;
        }
        let paths = Self {
            bytes,
            position: 12,
            left: number(bytes, 8)?,
        };
        (paths.left > 0 || paths.extensions_are_usual()).then_some(paths)
    }

    fn entry(&mut self) -> Option<&'a [u8]> {
        const KIND: u32 = 0o170_000;
        const SUBMODULE: u32 = 0o160_000;
        const SPARSE_FOLDER: u32 = 0o040_000;
        const EXTENDED: u8 = 0x40;
        const SKIP_WORKTREE: u8 = 0x40;
        let entry = self.bytes.get(self.position..)?;
        let kind = number(entry, 24)? & KIND;
        if matches!(kind, SUBMODULE | SPARSE_FOLDER) {
            return None;
        }
        let mut start = Self::FIXED;
        if entry.get(60)? & EXTENDED != 0 {
            if entry.get(Self::FIXED)? & SKIP_WORKTREE != 0 {
                return None;
            }
            start += 2;
        }
        let rest = entry.get(start..)?;
        let path = rest.get(..rest.iter().position(|byte| *byte == 0)?)?;
        // One to eight zero bytes bring the entry to a multiple of eight.
        self.position += (start + path.len()) / 8 * 8 + 8;
        Some(path)
    }

    /// Whether the extensions say that more belongs to the index than is in it.
    fn extensions_are_usual(&self) -> bool {
        let end = self.bytes.len().saturating_sub(Self::CHECKSUM);
        let mut position = self.position;
        while position < end {
            let name = self.bytes.get(position..position + 4);
            let length = number(self.bytes, position + 4).and_then(|it| usize::try_from(it).ok());
            let (Some(name), Some(length)) = (name, length) else {
                return false;
            };
            if matches!(name, b"link" | b"sdir") {
                return false;
            }
            position = position.saturating_add(8).saturating_add(length);
        }
        position == end
    }
}

impl<'a> Iterator for IndexPaths<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let path = self.entry();
        let usual = path.is_some() && (self.left > 0 || self.extensions_are_usual());
        if !usual {
            self.left = 0;
            return Some(None);
        }
        Some(path)
    }
}

fn number(bytes: &[u8], position: usize) -> Option<u32> {
    let bytes = bytes.get(position..position.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
