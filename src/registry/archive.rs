//! An image as one file that engines load: `docker load`, `podman load`, `nerdctl load`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;

use super::verified::VerifiedReader;
use super::{ImageToPush, RegistryError};
use crate::oci::{BlobSource, BytesBlob, Descriptor, ImageManifest, MediaType, Sha256Digest};

/// When the archive's members say that they were made: 1980-01-01T00:00:01Z.
const MODIFIED: u64 = 315_532_801;

/// `manifest.json`: what `docker save` writes and everybody loads.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest<'a> {
    config: String,
    repo_tags: &'a [String],
    layers: Vec<String>,
}

/// `index.json` of an OCI layout.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

/// Writes an image to a file, replacing what was there only when the new file is whole.
///
/// Layout, as `docker save` writes it since its version 25: `oci-layout`,
/// `index.json`, `manifest.json` and `blobs/sha256/…`, so that the file is an OCI
/// archive too, and the image keeps its digest. Layers stand in it as registries
/// hold them, compressed: every loader takes that, and the bytes need not be known
/// before they are written. The same image and names give the same bytes.
///
/// Of an index, `manifest.json` names the first image alone, because it can name no platform;
/// readers of OCI archives find them all.
///
/// `names` are those that a loader gives the image, `HOST/NAME:TAG`. One buffer of
/// a layer is in memory at a time. Reading layers may block: call this off the async threads.
///
/// # Errors
/// See [`RegistryError`]; a blob that is not what the manifest promises is one.
pub fn write_archive(
    image: &ImageToPush,
    names: &[String],
    file: &Path,
) -> Result<(), RegistryError> {
    let failed = |source: io::Error| failure(file, source);
    let loaded = image.parts.first().unwrap_or(&image.manifest);
    let manifest: ImageManifest =
        serde_json::from_slice(&loaded.bytes).map_err(|error| RegistryError::Malformed {
            what: format!("the manifest {}", loaded.descriptor.digest),
            problem: error.to_string(),
        })?;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let staged = tempfile::Builder::new()
        .prefix(".image-")
        .tempfile_in(folder)
        .map_err(failed)?;
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(1 << 18, staged));
    let written = write(&mut archive, image, &manifest, names).and_then(|()| {
        let staged = archive.into_inner()?.into_inner()?;
        make_readable(staged.as_file())?;
        staged.as_file().sync_all()?;
        Ok(staged)
    });
    let staged = written.map_err(failed)?;
    staged.persist(file).map_err(|error| failed(error.error))?;
    Ok(())
}

fn failure(file: &Path, source: io::Error) -> RegistryError {
    let damage = (source.get_ref())
        .and_then(|inner| inner.downcast_ref::<super::verified::Damage>())
        .cloned();
    match damage {
        Some(damage) => damage.into(),
        None => RegistryError::Io {
            action: format!("cannot write the image to {}", file.display()),
            source,
        },
    }
}

fn write(
    archive: &mut tar::Builder<impl Write>,
    image: &ImageToPush,
    manifest: &ImageManifest,
    names: &[String],
) -> io::Result<()> {
    append(archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut named = image.manifest.descriptor.clone();
    if let Some(name) = names.first() {
        // Under which name containerd, and under which tag OCI's own tools, find it.
        let (_, tag) = name.rsplit_once(':').unwrap_or(("", name));
        named.annotations = BTreeMap::from([
            ("io.containerd.image.name".to_owned(), name.clone()),
            (
                "org.opencontainers.image.ref.name".to_owned(),
                tag.to_owned(),
            ),
        ]);
    }
    let index = Index {
        schema_version: 2,
        media_type: MediaType::OCI_INDEX,
        manifests: vec![named],
    };
    append(archive, "index.json", &serde_json::to_vec(&index)?)?;
    let docker = [DockerManifest {
        config: path_of(&manifest.config.digest),
        repo_tags: names,
        layers: (manifest.layers.iter())
            .map(|layer| path_of(&layer.digest))
            .collect(),
    }];
    append(archive, "manifest.json", &serde_json::to_vec(&docker)?)?;

    // Each once, although layers may repeat, in an order of their own.
    let manifests = image.parts.iter().chain([&image.manifest]);
    let manifests: Vec<BytesBlob> = manifests
        .map(|one| BytesBlob::new(one.descriptor.media_type.clone(), one.bytes.clone()))
        .collect();
    let manifests = manifests.iter().map(|blob| blob as &dyn BlobSource);
    let all = manifests.chain(image.blobs.iter().map(|blob| &**blob as &dyn BlobSource));
    let blobs: BTreeMap<Sha256Digest, &dyn BlobSource> =
        all.map(|blob| (blob.descriptor().digest, blob)).collect();
    for (digest, blob) in blobs {
        let descriptor = blob.descriptor();
        let reader = VerifiedReader::new(blob.open()?, descriptor);
        append_stream(archive, &path_of(&digest), descriptor.size, reader)?;
    }
    Ok(())
}

fn path_of(digest: &Sha256Digest) -> String {
    format!("blobs/{}", digest.to_string().replacen(':', "/", 1))
}

fn append(archive: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    append_stream(archive, path, bytes.len() as u64, bytes)
}

fn append_stream(
    archive: &mut tar::Builder<impl Write>,
    path: &str,
    size: u64,
    reader: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(MODIFIED);
    header.set_size(size);
    archive.append_data(&mut header, path, reader)
}

/// A staged file is its owner's alone; what others should load, they must be able to read.
fn make_readable(file: &std::fs::File) -> io::Result<()> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}
