//! See [`crate::fuzzing`].
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use super::archive::check_path;
use super::*;

/// What is read of one entry.
const MOST: u64 = 1 << 20;

fn scheme() -> InstallScheme {
    InstallScheme::under("usr/local", (3, 11), "site-packages", "/usr/bin/python3")
}

/// Installs on paper: nothing may lie outside the scheme's folders.
fn install(archive: &Archive<Vec<u8>>) {
    let name = "x-1.0-py3-none-any.whl".parse().unwrap();
    if let Ok(installation) = Installation::plan(archive, &name, &scheme()) {
        for file in &installation.files {
            check_path(&file.path).unwrap();
            assert!(file.path.starts_with("usr/local/"), "{}", file.path);
        }
        assert!(check_conflicts([&installation].into_iter()).is_ok());
    }
}

/// A wheel is refused, or what is read of it is what it says.
pub fn wheel(bytes: &[u8]) {
    let Ok(archive) = Archive::open(bytes.to_vec()) else {
        return;
    };
    for entry in archive.entries() {
        check_path(&entry.path).unwrap();
        if let Ok(read) = archive.read(entry, MOST) {
            assert_eq!(read.len() as u64, entry.size);
            assert_eq!(crc32fast::hash(&read), entry.crc32);
        }
    }
    install(&archive);
}

/// The metadata of a wheel whose archive is sound: WHEEL, RECORD, entry points and the names of
/// files, each up to a zero byte.
pub fn wheel_metadata(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let mut writer = ArchiveWriter::new(Vec::new(), 0);
    for name in ["WHEEL", "RECORD", "entry_points.txt", "METADATA"] {
        let path = format!("x-1.0.dist-info/{name}");
        let text = parts.next().unwrap_or_default();
        writer.add(&path, text, false).unwrap();
    }
    for name in parts.take(50) {
        if let Ok(path) = std::str::from_utf8(name) {
            let _: Result<WheelFileName, _> = path.parse();
            if path.len() < 5000 {
                writer.add(path, b"#!python\n", false).unwrap();
            }
        }
    }
    wheel(&writer.finish().unwrap());
}

/// A requirements file is refused, or read; no credential stays where it is taken out.
pub fn requirements(bytes: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("requirements.txt");
    std::fs::write(&path, bytes).unwrap();
    if let Ok(read) = Requirements::read(&[path]) {
        read.digest();
        for line in read.lines() {
            let stripped = strip_credentials(line);
            assert!(!has_credentials(&stripped), "{line:?} gives {stripped:?}");
        }
    }
}
