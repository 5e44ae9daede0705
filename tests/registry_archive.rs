//! Images as files that engines load, read back by tools of other people.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/images.rs"]
#[allow(dead_code)]
mod images;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use forebay::oci::{BlobSource, BytesBlob, Descriptor};
use forebay::registry::{RegistryError, write_archive};
use serde_json::Value;

fn skopeo(arguments: &[&str]) -> Option<String> {
    let output = match Command::new("skopeo").args(arguments).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "skopeo is needed: {error}"
            );
            return None;
        }
    };
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn seeds() -> Vec<String> {
    ["one", "two", "one"].map(str::to_owned).to_vec()
}

#[test]
fn other_tools_load_the_archive() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(".image/image-1.0.tar");
    // A layer that stands in the image twice is in the file once.
    let image = images::loadable_image(&seeds(), 100_000);
    write_archive(&image, &["registry.test/project:1.0".to_owned()], &file).unwrap();
    let size = std::fs::metadata(&file).unwrap().len();
    assert!(size < 250_000, "{size}");

    let docker = format!("docker-archive:{}", file.display());
    let Some(inspected) = skopeo(&["inspect", &docker]) else {
        return;
    };
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 3);
    let named = skopeo(&["inspect", &format!("{docker}:registry.test/project:1.0")]);
    assert!(named.is_some());
    // Loading unpacks every layer and compares it with the configuration.
    let unpacked = directory.path().join("unpacked");
    skopeo(&["copy", &docker, &format!("dir:{}", unpacked.display())]);
    // As an OCI archive it still is the same image.
    let oci = format!("oci-archive:{}", file.display());
    let manifest = skopeo(&["inspect", "--raw", &oci]).unwrap();
    assert_eq!(manifest.as_bytes(), image.manifest.bytes);
    let copied = directory.path().join("copied");
    skopeo(&["copy", &oci, &format!("oci:{}:1.0", copied.display())]);
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let file = directory.path().join(name);
        write_archive(&images::loadable_image(&seeds(), 10_000), &[], &file).unwrap();
        std::fs::read(file).unwrap()
    };
    assert_eq!(write("a.tar"), write("b.tar"));
}

/// A blob whose bytes are not what it promises.
struct Damaged(BytesBlob);

impl BlobSource for Damaged {
    fn descriptor(&self) -> &Descriptor {
        self.0.descriptor()
    }

    fn open(&self) -> std::io::Result<Box<dyn std::io::Read + Send>> {
        let mut bytes = self.0.bytes().to_vec();
        bytes[100] ^= 1;
        Ok(Box::new(std::io::Cursor::new(bytes)))
    }
}

#[test]
fn a_damaged_layer_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    std::fs::write(&file, "older").unwrap();
    let mut image = images::image_of(vec![images::blob("a", 1_000)]);
    image.blobs[1] = Arc::new(Damaged(images::blob("a", 1_000)));
    let error = write_archive(&image, &[], &file).unwrap_err();
    assert!(matches!(error, RegistryError::Damaged { .. }), "{error:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"older");
    assert_eq!(files_in(directory.path()), 1);
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}
