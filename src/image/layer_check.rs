//! Refuses what no layer of an image may have, before anything of it is kept.

use std::collections::HashSet;
use std::io::{self, Read};

use super::guard::{Guarded, MAX_LAYER};

/// Entries that one layer may have.
const MAX_ENTRIES: usize = 4_000_000;

fn invalid(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

/// Whether a path stays below the root: relative, without `..` and NUL.
fn stays_inside(path: &[u8]) -> bool {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    !path.starts_with(b"/")
        && !path.contains(&0)
        && path.split(|byte| *byte == b'/').all(|part| part != b"..")
}

/// Reads a layer's archive to its end; gives the number of its entries.
///
/// # Errors
/// An archive that breaks off, a path that leaves the root, a device, the same file twice,
/// or more than a layer may be.
pub(super) fn check_layer(reader: impl Read) -> io::Result<usize> {
    let (guarded, allowance) = Guarded::new(reader.take(MAX_LAYER));
    let mut archive = tar::Archive::new(guarded);
    let mut seen: HashSet<[u8; 16]> = HashSet::new();
    for entry in archive.entries()? {
        let entry = entry?;
        allowance.enter(&entry)?;
        let path = entry.path_bytes();
        let shown = String::from_utf8_lossy(&path).into_owned();
        if !stays_inside(&path) {
            return Err(invalid(format!("{shown:?} is no path below the root")));
        }
        let kind = entry.header().entry_type();
        match kind {
            tar::EntryType::Regular
            | tar::EntryType::Continuous
            | tar::EntryType::Directory
            | tar::EntryType::GNUSparse
            | tar::EntryType::XGlobalHeader
            // Where a link leads is looked up in the container.
            | tar::EntryType::Symlink => {}
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                if !stays_inside(&target) {
                    return Err(invalid(format!("the hard link {shown:?} leaves the root")));
                }
            }
            _ => return Err(invalid(format!("{shown:?} is a device or something unknown"))),
        }
        let mut name: &[u8] = &path;
        while let Some(rest) = name.strip_suffix(b"/") {
            name = rest;
        }
        let name = name.strip_prefix(b"./").unwrap_or(name);
        let mut digest = [0; 16];
        let whole = blake3_of(name);
        digest.copy_from_slice(whole.get(..16).unwrap_or(&[0; 16]));
        let is_new = seen.insert(digest);
        if !is_new
            && !matches!(
                kind,
                tar::EntryType::Directory | tar::EntryType::XGlobalHeader
            )
        {
            return Err(invalid(format!("{shown:?} is there twice")));
        }
        if seen.len() > MAX_ENTRIES {
            return Err(invalid(format!("it has more than {MAX_ENTRIES} entries")));
        }
    }
    // What stands behind the archive's end counts for the digest.
    allowance.all();
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(seen.len())
}

fn blake3_of(bytes: &[u8]) -> [u8; 32] {
    *forebay_store::ObjectDigest::of(bytes).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, link) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_size(0);
            // Not set_path, which refuses what is tested here.
            let name = &mut header.as_old_mut().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            let target = &mut header.as_old_mut().linkname;
            target[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn what_leaves_the_root_or_is_no_file_is_refused() {
        use tar::EntryType as Kind;
        let good = archive(&[
            ("./", Kind::Directory, ""),
            ("./usr", Kind::Directory, ""),
            ("usr/", Kind::Directory, ""),
            ("usr/a", Kind::Regular, ""),
            ("usr/b", Kind::Symlink, "../../etc/passwd"),
            ("usr/c", Kind::Link, "usr/a"),
            ("usr/.wh.d", Kind::Regular, ""),
        ]);
        check_layer(good.as_slice()).unwrap();
        for (entries, problem) in [
            (vec![("../a", Kind::Regular, "")], "below the root"),
            (vec![("a/../../b", Kind::Regular, "")], "below the root"),
            (vec![("/etc/passwd", Kind::Regular, "")], "below the root"),
            (vec![("a", Kind::Link, "../b")], "leaves the root"),
            (vec![("a", Kind::Link, "/b")], "leaves the root"),
            (vec![("dev/sda", Kind::Block, "")], "device"),
            (vec![("dev/x", Kind::Char, "")], "device"),
            (vec![("a", Kind::Fifo, "")], "device"),
            (
                vec![("a", Kind::Regular, ""), ("./a", Kind::Symlink, "b")],
                "twice",
            ),
        ] {
            let error = check_layer(archive(&entries).as_slice()).unwrap_err();
            assert!(error.to_string().contains(problem), "{entries:?}: {error}");
        }
        let whole = archive(&[("a", Kind::Regular, "")]);
        assert!(check_layer(&whole[..300]).is_err());
    }
}
