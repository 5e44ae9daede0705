//! See [`crate::fuzzing`].
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::sync::{Arc, OnceLock};

use flate2::read::MultiGzDecoder;
use forebay_store::{ObjectDigest, Sha256Digest, Store, Tree};

use super::layer_check::check_layer;
use super::plan::{ImagePlan, PlanContext, plan};
use super::run::{Surroundings, exec_effects, shell_effects, split_commands};
use super::saved::{DockerArchive, Limits, SavedImage};
use super::splice::{self, Piece};
use super::tar::{self, FileTree, Node};
use super::{Dockerfile, IgnoreFile, base_python};
use crate::progress::Silent;
use crate::wheels::{Archive, Platform};

/// What is unpacked of one input at most.
const MOST: u64 = 1 << 20;

fn planned(dockerfile: &Dockerfile) -> ImagePlan {
    let tree = Tree {
        entries: Vec::new(),
        read_again: 0,
    };
    plan(
        dockerfile,
        &PlanContext {
            tree: &tree,
            ignore: &IgnoreFile::default(),
            base_environment: &BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned())]),
            base_directory: Some("/srv"),
            project_requirements: "resources/requirements.txt",
            platform: Platform::LinuxAmd64,
            hoists_packages: true,
            replaced_base: None,
        },
    )
}

/// A Dockerfile is refused, or every line of it is planned.
pub fn dockerfile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    IgnoreFile::parse(text).excludes("a/b/c.py");
    let Ok(parsed) = Dockerfile::parse(text) else {
        return;
    };
    for instruction in &parsed.instructions {
        let _ = (instruction.text(), instruction.exec_form());
    }
    let _ = super::base_of(&parsed);
    planned(&parsed);
}

/// A RUN line needs a container, or its effects stay below the root.
pub fn run_line(bytes: &[u8]) {
    let Ok(line) = std::str::from_utf8(bytes) else {
        return;
    };
    let surroundings = Surroundings {
        directory: "srv",
        variables: &BTreeMap::from([("A".to_owned(), "$B x".to_owned())]),
    };
    let _ = split_commands(line);
    let _ = shell_effects(line, &surroundings);
    let words: Vec<String> = line.split('\n').map(str::to_owned).collect();
    let _ = exec_effects(&words, &surroundings);
}

/// A file of the bytes, which lives as long as the first of the two.
fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file.flush().unwrap();
    file
}

/// What another tool has saved is refused, or all of its layers can be sent.
pub fn saved_image(bytes: &[u8]) {
    static STORE: OnceLock<(tempfile::TempDir, Arc<Store>)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        (directory, Arc::new(store))
    });
    let file = file(bytes);
    let limits = Limits { layer: MOST };
    if let Ok(image) = SavedImage::open(file.path(), None, store, &limits, &Silent) {
        for blob in image.to_push().blobs {
            let mut read = Vec::new();
            let promised = blob.descriptor();
            let opened = blob.open().unwrap().take(2 * MOST).read_to_end(&mut read);
            if opened.is_ok() && promised.size < MOST {
                assert_eq!(Sha256Digest::of(&read), promised.digest);
            }
        }
    }
}

/// The archive that a container engine gives back is refused, or its layers are what it says.
pub fn container_archive(bytes: &[u8]) {
    let file = file(bytes);
    let limits = Limits { layer: MOST };
    let Ok(archive) = DockerArchive::open(file.path(), &limits) else {
        return;
    };
    for (layer, diff_id) in archive.layers(0).zip(archive.diff_ids()) {
        let mut read = Vec::new();
        if layer.copy(&mut read).is_ok() {
            assert_eq!(Sha256Digest::of(&read), *diff_id);
        }
    }
}

/// A layer is refused, or every entry of it stays below the root; a base's is looked through for
/// a Python.
pub fn base_layer(bytes: &[u8]) {
    if check_layer(bytes.take(MOST)).is_ok() {
        let mut archive = ::tar::Archive::new(bytes.take(MOST));
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let path = entry.path_bytes();
            let mut parts = path.split(|byte| *byte == b'/');
            assert!(parts.all(|part| part != b".."), "{path:?}");
        }
    }
    base_python::look_through(bytes.take(MOST));
    base_python::look_through(MultiGzDecoder::new(bytes).take(MOST));
}

/// A wheel that is spliced inflates to the archive that its unpacked files give.
pub fn splice(bytes: &[u8]) {
    let Ok(wheel) = Archive::open(bytes.to_vec()) else {
        return;
    };
    if wheel.entries().iter().any(|entry| entry.size > MOST) {
        return;
    }
    let mut tree = FileTree::default();
    for (index, entry) in wheel.entries().iter().enumerate() {
        let node = Node::File {
            content: Piece::Entry {
                wheel: 0,
                entry: index,
                sha256: None,
            },
            size: entry.size,
            executable: entry.executable,
        };
        // A file that another has as a folder.
        if tree.insert(entry.path.clone(), node).is_err() {
            return;
        }
    }
    let all: Result<Vec<Vec<u8>>, _> = wheel
        .entries()
        .iter()
        .map(|entry| wheel.read(entry, MOST))
        .collect();
    let object = ObjectDigest::of(bytes);
    let spliced = splice::splice(&tree, &[(object, &wheel)], || Ok(vec![bytes.to_vec()]));
    let (Ok(all), Ok(spliced)) = (&all, &spliced) else {
        assert_eq!(all.is_ok(), spliced.is_ok());
        return;
    };
    let mut expected = Vec::new();
    for (path, node) in tree.iter() {
        tar::write_header(&mut expected, path, node);
        if let Node::File {
            content: Piece::Entry { entry, .. },
            size,
            ..
        } = node
        {
            expected.extend_from_slice(&all[*entry]);
            expected.resize(expected.len() + tar::padding(*size), 0);
        }
    }
    expected.extend_from_slice(&tar::END);
    let recipe = std::io::Cursor::new(spliced.recipe.as_slice());
    let mut layer = Vec::new();
    splice::SplicedReader::new(recipe, |_| Ok(vec![bytes.to_vec()]))
        .unwrap()
        .read_to_end(&mut layer)
        .unwrap();
    assert_eq!(
        (Sha256Digest::of(&layer), layer.len() as u64),
        (spliced.digest, spliced.size)
    );
    let mut inflated = Vec::new();
    MultiGzDecoder::new(layer.as_slice())
        .read_to_end(&mut inflated)
        .unwrap();
    assert!(inflated == expected);
    assert_eq!(Sha256Digest::of(&inflated), spliced.diff_id);
}
