//! The layers of wheels.

use std::collections::BTreeMap;
use std::io::Read;

use forebay_store::ObjectDigest;
use proptest::prelude::*;

use super::super::layer::Layer;
use super::super::*;
use super::{bytes_of, gunzip, lock, new_store, scheme};
use crate::oci::Sha256Digest;
use crate::progress::Silent;
use crate::wheels::testing::WheelBuilder;
use crate::wheels::{Archive, Content, Installation, LockedWheel, WheelSet};

/// The tar archive that unpacking the wheels (file name, bytes) and archiving the files gives,
/// written by other code: the `tar` crate's headers, except for names that can be split in
/// more than one way.
fn unpack_then_tar(wheels: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut files: BTreeMap<String, Option<(Vec<u8>, bool)>> = BTreeMap::new();
    for (name, wheel) in wheels {
        let archive = Archive::open(wheel.clone()).unwrap();
        let name = name.parse().unwrap();
        for file in Installation::plan(&archive, &name, &scheme())
            .unwrap()
            .files
        {
            let content = match file.content {
                Content::Generated(bytes) => bytes,
                Content::Entry(index) => archive.read(&archive.entries()[index], u64::MAX).unwrap(),
            };
            for (slash, _) in file.path.match_indices('/') {
                files.insert(file.path[..slash].to_owned(), None);
            }
            files.insert(file.path, Some((content, file.executable)));
        }
    }
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, file) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(315_532_801);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        match file {
            None => {
                header.set_entry_type(::tar::EntryType::Directory);
                header.set_mode(0o755);
                header.set_size(0);
                header.set_path(format!("{path}/")).unwrap();
                header.set_cksum();
                builder.append(&header, std::io::empty()).unwrap();
            }
            Some((content, executable)) if path.len() > 100 => {
                let node = super::super::tar::Node::File {
                    content: (),
                    size: content.len() as u64,
                    executable,
                };
                let out = builder.get_mut();
                super::super::tar::write_header(out, &path, &node);
                out.extend_from_slice(&content);
                out.resize(out.len().next_multiple_of(512), 0);
            }
            Some((content, executable)) => {
                header.set_entry_type(::tar::EntryType::Regular);
                header.set_mode(if executable { 0o755 } else { 0o644 });
                header.set_size(content.len() as u64);
                header.set_path(&path).unwrap();
                header.set_cksum();
                builder.append(&header, content.as_slice()).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

fn any_wheel() -> impl Strategy<Value = Vec<(String, Vec<u8>, bool, bool)>> {
    let path = "[a-c]{1,3}(/[a-c]{1,3}){0,2}\\.[a-z]{2}";
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..3000),
        (any::<u8>(), 0usize..200_000).prop_map(|(byte, length)| vec![byte; length]),
    ];
    proptest::collection::vec((path, content, any::<bool>(), any::<bool>()), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_spliced_layer_is_the_tar_of_the_unpacked_wheel(files in any_wheel()) {
        let mut wheel = WheelBuilder::new("some").data("scripts/run", b"#!python\n");
        for (path, content, executable, deflate) in files {
            // One directory level under a name of its own: no file is another's directory.
            let path = format!("pkg/{}", path.replace('.', "_."));
            wheel = wheel.entry(&path, &content, if executable { 0o755 } else { 0o644 }, deflate);
        }
        let (_directory, store) = new_store();
        let set = lock(&store, &[&wheel]);
        let layers = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap();
        prop_assert_eq!(layers.len(), 1);
        let tar = gunzip(&bytes_of(&store, &layers[0]));
        let expected = unpack_then_tar(&[(wheel.file_name(), wheel.build())]);
        let difference = tar.iter().zip(&expected).position(|(a, b)| a != b);
        prop_assert_eq!((tar.len(), difference), (expected.len(), None));
        prop_assert_eq!(Sha256Digest::of(&tar), layers[0].diff_id);
    }
}

/// Debian keeps pip and setuptools for its virtual environments, as their makers built them.
#[test]
fn a_spliced_layer_of_real_wheels_is_the_tar_of_what_they_unpack_to() {
    let folder = std::path::Path::new("/usr/share/python-wheels");
    let mut wheels: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .collect();
    wheels.sort();
    if wheels.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "there are no wheels");
        return;
    }
    let (_directory, store) = new_store();
    let mut batch = store.begin().unwrap();
    let locked = wheels.iter().map(|(name, bytes)| {
        let info = batch.put(bytes).unwrap();
        LockedWheel {
            file_name: name.parse().unwrap(),
            object: info.digest,
            sha256: info.sha256,
            size: info.size,
        }
    });
    let locked: Vec<LockedWheel> = locked.collect();
    batch.commit().unwrap();
    for (wheel, locked) in wheels.into_iter().zip(locked) {
        let set = WheelSet::new(vec![locked]).unwrap();
        let layers = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap();
        let tar = gunzip(&bytes_of(&store, &layers[0]));
        assert!(tar == unpack_then_tar(&[wheel]), "{set:?}");
        assert_eq!(Sha256Digest::of(&tar), layers[0].diff_id);
    }
}

#[test]
fn a_wheel_whose_record_lies_makes_no_layer() {
    let wheel = WheelBuilder::new("liar").file("a.py", b"one");
    let right = wheel.build();
    let archive = Archive::open(right).unwrap();
    let record = archive.entry("liar-1.0.dist-info/RECORD").unwrap();
    let record = String::from_utf8(archive.read(record, 1 << 20).unwrap()).unwrap();
    let wheel = WheelBuilder::new("liar")
        .file("a.py", b"two")
        .record(&record);
    let (_directory, store) = new_store();
    let set = lock(&store, &[&wheel]);
    let error = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap_err();
    assert!(
        error.to_string().contains("a.py\" is not what RECORD says"),
        "{error}"
    );
}

#[test]
fn conflicting_wheels_make_no_image() {
    let a = WheelBuilder::new("a").file("shared.py", b"1");
    let b = WheelBuilder::new("b").file("shared.py", b"2");
    let (_directory, store) = new_store();
    let set = lock(&store, &[&a, &b]);
    let error = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap_err();
    assert!(
        error.to_string().contains("a and b both install"),
        "{error}"
    );
}

#[test]
fn one_more_package_disturbs_one_layer() {
    let wheels: Vec<WheelBuilder> = (0..30)
        .map(|n| {
            let name = format!("package{n}");
            WheelBuilder::new(&name).file(&format!("{name}/__init__.py"), name.as_bytes())
        })
        .collect();
    let (_directory, store) = new_store();
    let some: Vec<&WheelBuilder> = wheels.iter().skip(1).collect();
    let all: Vec<&WheelBuilder> = wheels.iter().collect();
    let digests = |wheels: &[&WheelBuilder]| -> Vec<Sha256Digest> {
        let set = lock(&store, wheels);
        let layers = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap();
        layers.iter().map(|layer| layer.descriptor.digest).collect()
    };
    let (before, after) = (digests(&some), digests(&all));
    assert!(before.len() <= 8 && after.len() <= 8);
    let new: Vec<_> = after
        .iter()
        .filter(|digest| !before.contains(digest))
        .collect();
    assert_eq!(new.len(), 1);
}

/// The sizes of BigFlow's own dependencies: eight large wheels with 102 MB of the 120, and 78
/// from 16 KiB to 1 MiB, with a median of 128 KiB.
#[test]
fn one_small_dependency_changed_is_a_twentieth_of_the_dependencies() {
    let large = [5_u64, 5, 6, 9, 13, 15, 18, 31].map(|megabytes| megabytes * 1_000_000);
    let small = (0..78).map(|n| (f64::from(16 << 10) * 64_f64.powf(f64::from(n) / 77.0)) as u64);
    let sizes: Vec<u64> = large.into_iter().chain(small).collect();
    let (_directory, store) = new_store();
    let mut batch = store.begin().unwrap();
    let mut wheel = |number: usize, release: u8| {
        // As good as compressed already.
        let mut content = vec![0; usize::try_from(sizes[number]).unwrap()];
        let mut noise = blake3::Hasher::new();
        noise.update(&[u8::try_from(number).unwrap(), release]);
        noise.finalize_xof().fill(&mut content);
        let name = format!("distribution{number}");
        let wheel = WheelBuilder::new(&name).entry(&format!("{name}.bin"), &content, 0o644, false);
        let info = batch.put(&wheel.build()).unwrap();
        LockedWheel {
            file_name: wheel.file_name().parse().unwrap(),
            object: info.digest,
            sha256: info.sha256,
            size: info.size,
        }
    };
    let before: Vec<LockedWheel> = (0..sizes.len()).map(|number| wheel(number, 0)).collect();
    // The smallest, the median, the largest of the small ones.
    let changed = [8, 47, 85].map(|number| (number, wheel(number, 1)));
    batch.commit().unwrap();
    let layers = |wheels: &[LockedWheel]| -> BTreeMap<Sha256Digest, u64> {
        let set = WheelSet::new(wheels.to_vec()).unwrap();
        let layers = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap();
        let layers = layers.iter().map(|layer| &layer.descriptor);
        layers.map(|layer| (layer.digest, layer.size)).collect()
    };
    let known = layers(&before);
    assert_eq!(known.len(), 8 + 8);
    for (number, wheel) in changed {
        let mut after = before.clone();
        after[number] = wheel;
        let after = layers(&after);
        let all: u64 = after.values().sum();
        let new = after
            .iter()
            .filter(|(digest, _)| !known.contains_key(*digest));
        let new: Vec<u64> = new.map(|(_, size)| *size).collect();
        assert_eq!(new.len(), 1, "{number}");
        assert!(new[0] * 20 <= all, "{number}: {} of {all}", new[0]);
    }
}

#[test]
fn a_recipe_is_small_beside_its_layer() {
    let noise: Vec<u8> = (0..400_000u32)
        .flat_map(|n| ObjectDigest::of(&n.to_le_bytes()).as_bytes()[..1].to_vec())
        .collect();
    let wheel = WheelBuilder::new("big").file("big/data.bin", &noise);
    let (_directory, store) = new_store();
    let set = lock(&store, &[&wheel]);
    let layers = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap();
    let recipe = store.info(&layers[0].object().unwrap()).unwrap().unwrap();
    assert!(
        recipe.size * 100 < layers[0].descriptor.size,
        "{}",
        recipe.size
    );
}

#[test]
fn a_layer_that_is_compressed_anew_has_the_same_inside() {
    use crate::project::CompressionSetting::{Gzip, Splice, Zstd};
    let (_directory, store) = new_store();
    let wheel = WheelBuilder::new("some").file("some/__init__.py", b"y = 2\n");
    let set = lock(&store, &[&wheel]);
    let layers = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap();
    let spliced = layers.into_iter().next().unwrap();
    let recompress = |layer: &Layer, to| recompress::recompress(layer.clone(), to, &store).unwrap();
    assert_eq!(recompress(&spliced, Splice), spliced);
    let gzip = recompress(&spliced, Gzip);
    assert_eq!(recompress(&spliced, Gzip), gzip);
    assert_eq!(recompress(&gzip, Gzip), gzip);
    let zstd = recompress(&spliced, Zstd);
    assert_eq!(recompress(&spliced, Zstd), zstd);
    assert_eq!(recompress(&zstd, Zstd), zstd);
    assert_ne!(gzip.descriptor.digest, spliced.descriptor.digest);
    for layer in [&gzip, &zstd] {
        assert_eq!(layer.diff_id, spliced.diff_id);
    }
    let ends = |layer: &Layer, end| layer.descriptor.media_type.as_str().ends_with(end);
    assert!(ends(&gzip, "tar+gzip") && ends(&zstd, "tar+zstd"));
    // One member holds it all.
    let bytes = bytes_of(&store, &gzip);
    let mut tar = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(bytes.as_slice());
    decoder.read_to_end(&mut tar).unwrap();
    assert_eq!(Sha256Digest::of(&tar), spliced.diff_id);
    let bytes = bytes_of(&store, &zstd);
    let mut tar = Vec::new();
    let mut reader = decompress::decompressed(bytes.as_slice()).unwrap();
    reader.read_to_end(&mut tar).unwrap();
    assert_eq!(Sha256Digest::of(&tar), spliced.diff_id);
}
