use std::collections::{BTreeMap, BTreeSet};

use forebay_store::{ObjectInfo, Store, Tree};
use proptest::prelude::*;

use super::super::tests::new_store;
use super::*;

const NAME: &str = "a layer";

fn tree(files: &BTreeMap<String, Vec<u8>>) -> FileTree<FileContent> {
    let mut tree = FileTree::default();
    for (path, bytes) in files {
        let node = Node::File {
            content: FileContent::Bytes(bytes.clone()),
            size: bytes.len() as u64,
            executable: false,
        };
        tree.insert(path.clone(), node).unwrap();
    }
    tree
}

fn pack_files(files: &BTreeMap<String, Vec<u8>>, last: &LastLayer) -> Packed {
    let context = BuildContext {
        directory: std::path::Path::new("/"),
        tree: &Tree {
            entries: Vec::new(),
            read_again: 0,
        },
    };
    pack(&tree(files), &context, last).unwrap()
}

fn bytes_of(packed: &Packed) -> Vec<u8> {
    let mut bytes = Vec::new();
    packed
        .compressed()
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

fn keep(store: &Store, packed: Packed) -> ObjectInfo {
    let last = LastLayer::find(store, &NAME).unwrap();
    let mut batch = store.begin().unwrap();
    let info = last.replace(packed, BTreeMap::new(), &mut batch).unwrap();
    batch.commit().unwrap();
    info
}

/// The members of `packed` that are not among those of `last`.
fn made_anew(packed: &Packed, last: &LastLayer) -> usize {
    let members = packed.members.iter();
    members
        .filter(|member| !last.members.contains_key(&member.section))
        .count()
}

/// Sources that are alike, but not the same.
fn sources(count: usize) -> BTreeMap<String, Vec<u8>> {
    (0..count)
        .map(|n| {
            let text = format!("def f{n}(value):\n    return value + {n}\n").repeat(n % 90 + 1);
            (
                format!("app/part{:02}/module{n}.py", n / 50),
                text.into_bytes(),
            )
        })
        .collect()
}

#[test]
fn one_file_of_a_thousand_takes_one_member_anew() {
    let (_directory, store) = new_store();
    let mut files = sources(1_000);
    let first = pack_files(&files, &LastLayer::none());
    let all = first.members.len();
    assert!((10..=40).contains(&all), "{all}");
    keep(&store, first);
    let last = LastLayer::find(&store, &NAME).unwrap();
    let count = |files: &BTreeMap<String, Vec<u8>>| made_anew(&pack_files(files, &last), &last);
    assert_eq!(count(&files), 0);

    let changed = "app/part03/module151.py".to_owned();
    files.insert(changed.clone(), b"x = 1\n".to_vec());
    // The size decides, with the path, whether a member ends here.
    assert!((1..=2).contains(&count(&files)));
    files.remove(&changed);
    assert!((1..=2).contains(&count(&files)));
    files.insert("app/part03/new.py".to_owned(), b"x = 1\n".to_vec());
    assert!((1..=3).contains(&count(&files)));
    files.insert("app/large.bin".to_owned(), vec![7; 1 << 20]);
    let with_large = count(&files);
    assert!((3..=6).contains(&with_large), "{with_large}");
    keep(&store, pack_files(&files, &last));
    // The large file is alone: small ones beside it do not have it compressed again.
    let last = LastLayer::find(&store, &NAME).unwrap();
    files.insert("app/largf".to_owned(), b"x = 1\n".to_vec());
    files.insert("app/largd".to_owned(), b"x = 1\n".to_vec());
    let packed = pack_files(&files, &last);
    let kept: BTreeSet<u64> = packed
        .members
        .iter()
        .filter(|member| last.members.contains_key(&member.section))
        .map(|member| member.length)
        .collect();
    let large = bytes_of(&pack_files(
        &BTreeMap::from([("app/large.bin".to_owned(), vec![7; 1 << 20])]),
        &LastLayer::none(),
    ));
    assert!(kept.iter().any(|length| *length * 2 > large.len() as u64));
    assert!((1..=3).contains(&made_anew(&packed, &last)));
}

#[test]
fn an_archive_within_one_is_the_same_bytes_and_compressed_once() {
    let (_directory, store) = new_store();
    let context = BuildContext {
        directory: std::path::Path::new("/"),
        tree: &Tree {
            entries: Vec::new(),
            read_again: 0,
        },
    };
    let whole = |files: &BTreeMap<String, Vec<u8>>, last: &LastLayer| {
        let inner = pack_files(files, last);
        let mut plain = Vec::new();
        inner.reader().unwrap().read_to_end(&mut plain).unwrap();
        assert_eq!(inner.sha256, Sha256Digest::of(&plain));
        assert_eq!(inner.size, plain.len() as u64);
        let mut tree = tree(files);
        let node = Node::File {
            size: inner.size,
            content: FileContent::Archive(inner),
            executable: false,
        };
        tree.insert("z/project.tar".to_owned(), node).unwrap();
        let packed = pack(&tree, &context, last).unwrap();
        let mut outer = Vec::new();
        packed.reader().unwrap().read_to_end(&mut outer).unwrap();
        assert_eq!(packed.sha256, Sha256Digest::of(&outer));
        let mut archive = ::tar::Archive::new(outer.as_slice());
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let mut entry = entries
            .find(|entry| entry.path().unwrap().ends_with("project.tar"))
            .unwrap();
        let mut read = Vec::new();
        entry.read_to_end(&mut read).unwrap();
        assert_eq!(read, plain);
        packed
    };
    let mut files = sources(300);
    keep(&store, whole(&files, &LastLayer::none()));
    let last = LastLayer::find(&store, &NAME).unwrap();
    assert_eq!(made_anew(&whole(&files, &last), &last), 0);
    files.insert("app/part03/module151.py".to_owned(), b"x = 1\n".to_vec());
    let again = whole(&files, &last);
    // In both places, and the header with the inner archive's size.
    assert!((2..=5).contains(&made_anew(&again, &last)));
    assert_eq!(
        bytes_of(&again),
        bytes_of(&whole(&files, &LastLayer::none()))
    );
}

#[test]
fn a_damaged_or_lost_layer_is_compressed_anew() {
    let (directory, store) = new_store();
    // Large enough for a file of its own in the store, and hard to compress.
    let noise: Vec<u8> = (0..40_000u32)
        .flat_map(|n| ObjectDigest::of(&n.to_le_bytes()).as_bytes().to_vec())
        .collect();
    let mut files = sources(100);
    files.insert("noise".to_owned(), noise);
    let packed = pack_files(&files, &LastLayer::none());
    let expected = bytes_of(&packed);
    let layer = keep(&store, packed);
    let hex = layer.digest.to_string();
    let place = walkdir::WalkDir::new(directory.path())
        .into_iter()
        .map(Result::unwrap)
        .find(|entry| {
            let name = entry.file_name().to_str().unwrap();
            entry.file_type().is_file() && name == hex
        })
        .unwrap();
    let mut damaged = expected.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::remove_file(place.path()).unwrap();
    std::fs::write(place.path(), &damaged).unwrap();
    let last = LastLayer::find(&store, &NAME).unwrap();
    assert!(last.layer.is_some());
    assert_eq!(bytes_of(&pack_files(&files, &last)), expected);
    std::fs::remove_file(place.path()).unwrap();
    let last = LastLayer::find(&store, &NAME).unwrap();
    assert!(last.layer.is_none());
    assert_eq!(bytes_of(&pack_files(&files, &last)), expected);
}

fn some_files() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let content = (any::<u8>(), 0usize..3_000, any::<u64>()).prop_map(|(byte, size, seed)| {
        let mut bytes = vec![byte; size * (1 + size % 60)];
        bytes.extend_from_slice(&seed.to_le_bytes());
        bytes
    });
    proptest::collection::btree_map("[a-c]/[a-z]{1,2}", content, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_was_built_before_does_not_show(
        before in some_files(), added in some_files(), removed in any::<u64>(),
    ) {
        let (_directory, store) = new_store();
        let mut after = before.clone();
        after.extend(added);
        let mut bits = removed;
        after.retain(|_, _| { bits = bits.rotate_left(1); bits & 1 == 0 || bits & 6 != 0 });
        keep(&store, pack_files(&before, &LastLayer::none()));
        let last = LastLayer::find(&store, &NAME).unwrap();
        let (with, without) = (pack_files(&after, &last), pack_files(&after, &LastLayer::none()));
        prop_assert_eq!(bytes_of(&with), bytes_of(&without));
        prop_assert_eq!(with.sha256, without.sha256);
        prop_assert_eq!(&with.members, &without.members);

        // One archive, whoever reads it.
        let mut plain = Vec::new();
        for (path, node) in tree(&after).iter() {
            tar::write_header(&mut plain, path, node);
            if let Node::File { content: FileContent::Bytes(bytes), size, .. } = node {
                plain.extend_from_slice(bytes);
                plain.resize(plain.len() + tar::padding(*size), 0);
            }
        }
        plain.extend_from_slice(&tar::END);
        let mut inflated = Vec::new();
        with.reader().unwrap().read_to_end(&mut inflated).unwrap();
        prop_assert!(inflated == plain);
        prop_assert_eq!(with.sha256, Sha256Digest::of(&plain));
    }
}
