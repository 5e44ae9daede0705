//! Archives of whole images, as `docker save` and its like write them. Nothing in
//! them is believed: sizes are bounded, paths checked, digests proved.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use sha2::Digest as _;

mod check;
mod guard;

pub(super) use check::check_layer;
pub(super) use guard::{Guarded, MAX_LAYER};

use crate::oci::Sha256Digest;

/// Bytes of `manifest.json` and of a configuration at most.
const MAX_JSON: u64 = 8 << 20;
/// Members of an archive at most.
const MAX_MEMBERS: usize = 100_000;
/// Layers of an image at most.
const MAX_LAYERS: usize = 1000;

fn invalid(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

/// Where a member's bytes are.
#[derive(Debug, Clone, Copy)]
struct Member {
    offset: u64,
    size: u64,
}

/// An image in the form of `docker save`, with old names (`ID/layer.tar`) or those of an OCI
/// layout (`blobs/sha256/…`).
#[derive(Debug)]
pub(super) struct ImageArchive {
    file: File,
    layers: Vec<(Sha256Digest, Member)>,
}

/// `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    config: String,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Sha256Digest>,
}

impl ImageArchive {
    /// Reads an archive's directory and the first image's configuration.
    ///
    /// # Errors
    /// What is no such archive, or lies about itself.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let (members, links) = directory(&file)?;
        let member = |name: &str| {
            let name = name.strip_prefix("./").unwrap_or(name);
            members
                .get(name)
                .or_else(|| members.get(links.get(name)?))
                .copied()
                .ok_or_else(|| invalid(format!("it has no {name}")))
        };
        let json = |name: &str| {
            let Member { offset, size } = member(name)?;
            if size > MAX_JSON {
                return Err(invalid(format!("{name} has more than {MAX_JSON} bytes")));
            }
            let mut bytes = Vec::new();
            reader_at(&file, offset, size)?.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let manifests: Vec<Manifest> = serde_json::from_slice(&json("manifest.json")?)?;
        let Some(manifest) = manifests.into_iter().next() else {
            return Err(invalid("its manifest.json names no image"));
        };
        let config = json(&manifest.config)?;
        let name = manifest.config.rsplit('/').next().unwrap_or_default();
        let hex = name.trim_end_matches(".json");
        if hex.len() == 64 && Sha256Digest::of(&config).to_string() != format!("sha256:{hex}") {
            return Err(invalid(format!(
                "{} is not what its name says",
                manifest.config
            )));
        }
        let config: Config = serde_json::from_slice(&config)?;
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() || diff_ids.len() > MAX_LAYERS {
            return Err(invalid("its configuration and manifest.json do not agree"));
        }
        let layers = diff_ids
            .into_iter()
            .zip(&manifest.layers)
            .map(|(diff_id, name)| Ok((diff_id, member(name)?)))
            .collect::<io::Result<_>>()?;
        Ok(Self { file, layers })
    }

    /// The layers' diff ids, in order.
    pub(super) fn diff_ids(&self) -> impl Iterator<Item = &Sha256Digest> {
        self.layers.iter().map(|(diff_id, _)| diff_id)
    }

    /// The archive of one layer, uncompressed; the reader fails at its end if the bytes are
    /// not those that the configuration names.
    ///
    /// # Errors
    /// No such layer, or one that is compressed in an unknown way.
    pub(super) fn layer(&self, index: usize) -> io::Result<impl Read + use<'_>> {
        let (diff_id, member) = self
            .layers
            .get(index)
            .ok_or_else(|| invalid(format!("it has no layer {index}")))?;
        let mut magic = [0; 4];
        let mut start = reader_at(&self.file, member.offset, member.size)?;
        let length = start.read(&mut magic)?;
        let reader = reader_at(&self.file, member.offset, member.size)?;
        let inner: Box<dyn Read + '_> = match magic.get(..length).unwrap_or_default() {
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(reader)),
            [0x28, 0xb5, 0x2f, 0xfd] => {
                return Err(invalid("a layer is compressed with zstd"));
            }
            _ => Box::new(reader),
        };
        Ok(Verified {
            inner: inner.take(MAX_LAYER),
            expected: *diff_id,
            hash: Some(sha2::Sha256::new()),
        })
    }
}

type Members = BTreeMap<String, Member>;
/// Links to other members, as older versions of Docker write a layer that occurs twice.
type Links = BTreeMap<String, String>;

fn directory(file: &File) -> io::Result<(Members, Links)> {
    let mut members = Members::new();
    let mut links = Links::new();
    let (guarded, allowance) = Guarded::new(file);
    let mut archive = tar::Archive::new(guarded);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        allowance.enter(&entry)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
        let is_new = match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => members
                .insert(
                    path.clone(),
                    Member {
                        offset: entry.raw_file_position(),
                        size: entry.size(),
                    },
                )
                .is_none(),
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                let target = super::run::resolve_path(parent, &target);
                links.insert(path.clone(), target).is_none()
            }
            _ => true,
        };
        if !is_new {
            return Err(invalid(format!("{path} is there twice")));
        }
        if members.len() + links.len() > MAX_MEMBERS {
            return Err(invalid(format!("it has more than {MAX_MEMBERS} members")));
        }
    }
    Ok((members, links))
}

fn reader_at(mut file: &File, offset: u64, size: u64) -> io::Result<impl Read + use<'_>> {
    // Readers of one file share its position: each member is read before the next is begun.
    file.seek(SeekFrom::Start(offset))?;
    Ok(BufReader::with_capacity(1 << 17, file).take(size))
}

/// Proves a layer's bytes when they end.
struct Verified<R> {
    inner: R,
    expected: Sha256Digest,
    hash: Option<sha2::Sha256>,
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        if length > 0 {
            if let Some(hash) = &mut self.hash {
                hash.update(buffer.get(..length).unwrap_or_default());
            }
        } else if !buffer.is_empty()
            && let Some(hash) = self.hash.take()
            && Sha256Digest::from_bytes(hash.finalize().into()) != self.expected
        {
            return Err(invalid(format!(
                "a layer is not {}, as its configuration says",
                self.expected
            )));
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(members: &[(&str, &[u8])], link: Option<(&str, &str)>) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(file.as_file());
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        if let Some((name, target)) = link {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, name, target).unwrap();
        }
        builder.finish().unwrap();
        drop(builder);
        file
    }

    fn open(config: &str, manifest: &str, layer: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let file = archive(
            &[
                ("manifest.json", manifest.as_bytes()),
                ("c.json", config.as_bytes()),
                ("a/layer.tar", layer),
            ],
            Some(("b/layer.tar", "../a/layer.tar")),
        );
        let archive = ImageArchive::open(file.path())?;
        (0..archive.diff_ids().count())
            .map(|index| {
                let mut bytes = Vec::new();
                archive.layer(index)?.read_to_end(&mut bytes)?;
                Ok(bytes)
            })
            .collect()
    }

    #[test]
    fn layers_are_read_and_proved() {
        let layer = vec![7_u8; 5000];
        let id = Sha256Digest::of(&layer);
        let manifest = r#"[{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]"#;
        let config = format!(r#"{{"rootfs": {{"diff_ids": ["{id}", "{id}"]}}}}"#);
        let layers = open(&config, manifest, &layer).unwrap();
        assert_eq!(layers, [layer.clone(), layer.clone()]);

        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::copy(&mut layer.as_slice(), &mut gzip).unwrap();
        let compressed = gzip.finish().unwrap();
        assert_eq!(open(&config, manifest, &compressed).unwrap()[1], layer);

        for (config, manifest, layer, problem) in [
            (
                config.as_str(),
                manifest,
                &[8_u8; 5000][..],
                "a layer is not",
            ),
            (&config, manifest, &b"\x28\xb5\x2f\xfdxx"[..], "zstd"),
            (&config, "[]", &layer, "no image"),
            (
                &config,
                r#"[{"Config": "c.json", "Layers": ["a/layer.tar"]}]"#,
                &layer,
                "agree",
            ),
            (
                &config,
                r#"[{"Config": "x", "Layers": []}]"#,
                &layer,
                "no x",
            ),
            (
                &config,
                r#"[{"Config": "c.json", "Layers": ["a/layer.tar", "../../etc/passwd"]}]"#,
                &layer,
                "etc/passwd",
            ),
        ] {
            let error = open(config, manifest, layer).unwrap_err().to_string();
            assert!(error.contains(problem), "{problem}: {error}");
        }
    }
}
