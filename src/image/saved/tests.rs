//! Archives as tools write them, and as nobody should.

use std::io::Read as _;

use super::*;
use crate::oci::MediaType;
use crate::progress::Silent;
use serde_json::json;

/// A tar archive, member by member, whatever one puts into it.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.member(name, bytes, tar::EntryType::Regular, "", bytes.len() as u64)
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.member(name, b"", tar::EntryType::Symlink, target, 0)
    }

    fn json(self, name: &str, value: &serde_json::Value) -> Self {
        self.file(name, value.to_string().as_bytes())
    }

    fn member(
        mut self,
        name: &str,
        bytes: &[u8],
        kind: tar::EntryType,
        target: &str,
        size: u64,
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        // The library would refuse some of these names.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn read(mut self) -> Result<SavedImage, String> {
        self.0.resize(self.0.len() + 1024, 0);
        read_bytes(&self.0)
    }
}

fn read_bytes(bytes: &[u8]) -> Result<SavedImage, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image-1.tar");
    std::fs::write(&path, bytes).unwrap();
    read_path(&path).map(|image| image.kept_from(directory))
}

fn read_path(path: &Path) -> Result<SavedImage, String> {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(directory.path()).unwrap());
    let limits = Limits { layer: 1 << 20 };
    let image = SavedImage::open(path, None, &store, &limits, &Silent);
    let image = image.map(|image| image.kept_from(directory));
    image.map_err(|error| format!("{}", std::error::Error::source(&error).unwrap()))
}

fn layer(seed: &str) -> Vec<u8> {
    let archive = Archive::default().file("file", seed.repeat(1_000).as_bytes());
    archive.0
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = Vec::new();
    let level = flate2::Compression::best();
    flate2::bufread::GzEncoder::new(bytes, level)
        .read_to_end(&mut gzip)
        .unwrap();
    gzip
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Sha256Digest::of(layer)).collect();
    json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        .to_string()
        .into_bytes()
}

fn listing(config: &[u8], layers: &[&str]) -> serde_json::Value {
    let config = format!("{}.json", Sha256Digest::of(config).hex());
    json!([{"Config": config, "RepoTags": ["x:1"], "Layers": layers}])
}

/// What `docker save` writes of an image with these layers.
fn saved(layers: &[&[u8]]) -> Archive {
    let config = config(layers);
    let names: Vec<_> = (0..layers.len())
        .map(|n| format!("{n}/layer.tar"))
        .collect();
    let named: Vec<_> = names.iter().map(String::as_str).collect();
    let mut archive = Archive::default()
        .json("manifest.json", &listing(&config, &named))
        .file(
            &format!("{}.json", Sha256Digest::of(&config).hex()),
            &config,
        );
    for (name, layer) in names.iter().zip(layers) {
        archive = archive.file(name, layer);
    }
    archive
}

fn blob_name(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Sha256Digest::of(bytes).hex())
}

fn described(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": Sha256Digest::of(bytes), "size": bytes.len()})
}

/// An OCI archive of an image with one layer.
fn layout(media_type: &str, sent: &[u8], unpacked: &[u8]) -> (Archive, Vec<u8>) {
    let config = config(&[unpacked]);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST,
        "config": described(MediaType::OCI_CONFIG, &config),
        "layers": [described(media_type, sent)],
    });
    let manifest = manifest.to_string().into_bytes();
    let archive = Archive::default()
        .json("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))
        .json("index.json", &json!({"schemaVersion": 2, "manifests": [described(MediaType::OCI_MANIFEST, &manifest)]}))
        .file(&blob_name(&config), &config)
        .file(&blob_name(sent), sent)
        .file(&blob_name(&manifest), &manifest);
    (archive, manifest)
}

/// What the image's layers unpack to.
fn unpacked(image: &SavedImage) -> Vec<Vec<u8>> {
    (image.to_push().blobs.iter().skip(1))
        .map(|blob| {
            let mut bytes = Vec::new();
            let mut sent = Vec::new();
            blob.open().unwrap().read_to_end(&mut sent).unwrap();
            assert_eq!(Sha256Digest::of(&sent), blob.descriptor().digest);
            assert_eq!(sent.len() as u64, blob.descriptor().size);
            flate2::read::MultiGzDecoder::new(&*sent)
                .read_to_end(&mut bytes)
                .unwrap();
            bytes
        })
        .collect()
}

#[test]
fn layers_are_compressed_once_and_always_to_the_same_bytes() {
    let (a, b) = (layer("a"), layer("b"));
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&directory.path().join("store")).unwrap());
    let path = directory.path().join("image-1.tar");
    let open = |archive: Archive| {
        std::fs::write(&path, archive.0).unwrap();
        SavedImage::open(&path, None, &store, &Limits::default(), &Silent).unwrap()
    };
    let first = open(saved(&[&a, &b, &a]));
    assert_eq!(unpacked(&first), [a.clone(), b.clone(), a.clone()]);
    // One that the store knows is not read again, wherever it stands.
    let mut forged = a.clone();
    forged[600] ^= 1;
    let named = saved(&[&a, &b, &a]).0;
    let position = named
        .windows(a.len())
        .position(|window| window == a)
        .unwrap();
    let mut changed = named.clone();
    changed[position..position + a.len()].copy_from_slice(&forged);
    let again = open(Archive(changed));
    assert_eq!(again.digest(), first.digest());
    assert_eq!(unpacked(&again), unpacked(&first));
    // Another store makes the same bytes.
    let elsewhere = saved(&[&a, &b, &a]).read().unwrap();
    assert_eq!(elsewhere.digest(), first.digest());
}

#[test]
fn every_form_of_a_saved_image_is_read() {
    let (a, b) = (layer("a"), layer("b"));
    let config = config(&[&a, &b, &a]);
    let name = format!("{}.json", Sha256Digest::of(&config).hex());
    // Docker writes a layer that occurs twice once, and a link.
    let linked = Archive::default()
        .file("one/layer.tar", &a)
        .file("two/layer.tar", &gzip(&b))
        .link("three/layer.tar", "../one/layer.tar")
        .file(&name, &config)
        .json(
            "manifest.json",
            &listing(
                &config,
                &["one/layer.tar", "two/layer.tar", "three/layer.tar"],
            ),
        );
    let image = linked.read().unwrap();
    assert_eq!(unpacked(&image), [a.clone(), b, a.clone()]);
    assert_eq!(image.platform(), "linux/amd64");

    // What is compressed already keeps its digest, what is not gets one.
    let sent = gzip(&a);
    let (archive, manifest) = layout(MediaType::OCI_LAYER_GZIP, &sent, &a);
    let image = archive.read().unwrap();
    assert_eq!(*image.digest(), Sha256Digest::of(&manifest));
    assert_eq!(unpacked(&image), std::slice::from_ref(&a));
    let (archive, manifest) = layout("application/vnd.oci.image.layer.v1.tar", &a, &a);
    let image = archive.read().unwrap();
    assert_ne!(*image.digest(), Sha256Digest::of(&manifest));
    assert_eq!(unpacked(&image), [a]);
}

#[test]
fn long_names_are_read() {
    let a = layer("a");
    let config = config(&[&a]);
    let long = format!("{}/layer.tar", "deep/".repeat(60));
    let name = format!("{}.json", Sha256Digest::of(&config).hex());
    let record = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        // The length counts its own three digits.
        format!("{}{rest}", rest.len() + 3)
    };
    for (kind, header) in [
        (tar::EntryType::GNULongName, format!("{long}\0")),
        (tar::EntryType::XHeader, record("path", &long)),
    ] {
        let image = Archive::default()
            .member(
                "././@LongLink",
                header.as_bytes(),
                kind,
                "",
                header.len() as u64,
            )
            .file("short", &a)
            .file(&name, &config)
            .json("manifest.json", &listing(&config, &[&long]))
            .read()
            .unwrap();
        assert_eq!(unpacked(&image), std::slice::from_ref(&a));
    }
}

#[test]
fn hostile_archives_are_refused_with_a_reason() {
    let (a, b) = (layer("a"), layer("b"));
    let good = || saved(&[&a]);
    let own = config(&[&a]);
    let own_name = format!("{}.json", Sha256Digest::of(&own).hex());
    let with_layers = |names: &[&str]| {
        Archive::default()
            .file(&own_name, &own)
            .json("manifest.json", &listing(&own, names))
    };
    let bomb = gzip(&vec![0; 2 << 20]);
    let zeros = vec![0; 2 << 20];
    let regular = tar::EntryType::Regular;
    let cut = good().0;
    let lying = {
        let (_, manifest) = layout(MediaType::OCI_LAYER_GZIP, b"sent", &a);
        let forged = String::from_utf8(manifest)
            .unwrap()
            .replace("\"size\":4", "\"size\":5");
        let index = json!({"manifests": [described(MediaType::OCI_MANIFEST, forged.as_bytes())]});
        Archive::default()
            .json("oci-layout", &json!({}))
            .json("index.json", &index)
            .file(&blob_name(&own), &own)
            .file(&blob_name(b"sent"), b"sent")
            .file(&blob_name(forged.as_bytes()), forged.as_bytes())
    };
    let nested = {
        let index = |bytes: &[u8]| {
            json!({"manifests": [described(MediaType::OCI_INDEX, bytes)]})
                .to_string()
                .into_bytes()
        };
        let mut archive = Archive::default().json("oci-layout", &json!({}));
        let mut last = b"{}".to_vec();
        for _ in 0..9 {
            archive = archive.file(&blob_name(&last), &last);
            last = index(&last);
        }
        archive.file("index.json", &last)
    };
    let cases: Vec<(&str, Archive, &str)> = vec![
        (
            "empty",
            Archive::default(),
            "neither what `docker save` writes",
        ),
        (
            "a name that goes up",
            good().file("../x", b""),
            "leads out of it",
        ),
        (
            "an absolute name",
            good().file("/etc/x", b""),
            "leads out of it",
        ),
        (
            "a link that goes up",
            good().link("x", "../../etc/passwd"),
            "leads out of it",
        ),
        (
            "an absolute link",
            good().link("x", "/etc/passwd"),
            "leads out of it",
        ),
        (
            "a layer elsewhere",
            with_layers(&["../../etc/passwd"]),
            "leads out of it",
        ),
        (
            "an absolute layer",
            with_layers(&["/etc/passwd"]),
            "leads out of it",
        ),
        (
            "a layer that is missing",
            with_layers(&["x"]),
            "which is not there",
        ),
        (
            "a layer that is a link to itself",
            with_layers(&["x"]).link("x", "x"),
            "without end",
        ),
        (
            "a layer that is a folder",
            with_layers(&["x"]).member("x/", b"", tar::EntryType::Directory, "", 0),
            "which is not there",
        ),
        (
            "a layer that is a device",
            with_layers(&["x"]).member("x", b"", tar::EntryType::Char, "", 0),
            "which is not there",
        ),
        (
            "other bytes than promised",
            with_layers(&["x"]).file("x", &b),
            "is damaged: expected",
        ),
        (
            "other compressed bytes",
            with_layers(&["x"]).file("x", &gzip(&b)),
            "is damaged: expected",
        ),
        (
            "broken compressed bytes",
            with_layers(&["x"]).file("x", &[0x1f, 0x8b, 8, 0, 1]),
            "cannot be unpacked",
        ),
        (
            "zstd",
            with_layers(&["x"]).file("x", &[0x28, 0xb5, 0x2f, 0xfd, 0]),
            "zstd",
        ),
        (
            "a bomb",
            saved(&[&bomb]),
            "unpacks to more than 1048576 bytes",
        ),
        (
            "a large layer",
            saved(&[&zeros]),
            "unpacks to more than 1048576 bytes",
        ),
        (
            "two members of one name",
            good().file("x", b"1").file("./x", b"2"),
            "two members named x",
        ),
        (
            "a size beyond the end",
            good().member("x", b"", regular, "", 1 << 40),
            "ends too early",
        ),
        (
            "a long name without end",
            good().member(
                "x",
                &[b'a'; 70_000],
                tar::EntryType::GNULongName,
                "",
                70_000,
            ),
            "name without end",
        ),
        (
            "no archive",
            Archive(b"PK\x03\x04".repeat(300)),
            "no tar archive",
        ),
        (
            "compressed as a whole",
            Archive(gzip(&cut)),
            "compressed as a whole",
        ),
        (
            "another configuration",
            Archive::default()
                .file(&own_name, b"{}")
                .json("manifest.json", &listing(&own, &[])),
            "configuration is damaged",
        ),
        (
            "no configuration",
            Archive::default().json("manifest.json", &listing(&own, &[])),
            "which is not there",
        ),
        (
            "a wrong number of layers",
            Archive::default()
                .file(&own_name, &own)
                .json("manifest.json", &listing(&own, &[])),
            "speaks of 1 layers",
        ),
        (
            "no image",
            Archive::default().json("manifest.json", &json!([])),
            "names no image",
        ),
        (
            "two images",
            Archive::default().json(
                "manifest.json",
                &json!([listing(&own, &[])[0], listing(&own, &[])[0]]),
            ),
            "it holds 2 images",
        ),
        (
            "nonsense",
            Archive::default().json("manifest.json", &json!({"Config": 1})),
            "is not valid",
        ),
        (
            "a manifest without end",
            Archive::default().file("manifest.json", &vec![b' '; 9 << 20]),
            "may have",
        ),
        (
            "a lying size",
            lying,
            "is damaged: expected 5 bytes, got 4 bytes",
        ),
        ("indexes in indexes", nested, "without end"),
        (
            "a blob that is missing",
            Archive::default()
                .json("oci-layout", &json!({}))
                .json("index.json", &json!({"manifests": [described("x", b"y")]})),
            "is not there",
        ),
        (
            "a lying digest",
            Archive::default()
                .json("oci-layout", &json!({}))
                .json("index.json", &json!({"manifests": [described("x", b"y")]}))
                .file(&blob_name(b"y"), b"z"),
            "is damaged",
        ),
    ];
    let error = read_bytes(&cut[..1_600]).err().unwrap();
    assert!(error.contains("ends too early"), "{error}");
    for (name, archive, expected) in cases {
        match archive.read() {
            Ok(_) => panic!("{name} was taken"),
            Err(text) => assert!(text.contains(expected), "{name}: {text}"),
        }
    }
}

#[test]
fn a_folder_that_is_no_layout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = read_path(directory.path()).err().unwrap();
    assert!(error.contains("nor an OCI layout"), "{error}");
    let error = read_path(&directory.path().join("missing")).err().unwrap();
    assert!(error.contains("cannot be read"), "{error}");
}

#[test]
fn no_archive_ends_the_program() {
    use proptest::prelude::*;
    let whole = saved(&[&layer("a"), &layer("b")]).0;
    proptest!(ProptestConfig::with_cases(64), |(
        changes in proptest::collection::vec((0..whole.len(), any::<u8>()), 1..40),
        length in 0..whole.len(),
    )| {
        let mut bytes = whole.clone();
        for (position, byte) in changes {
            bytes[position] = byte;
        }
        bytes.truncate(length.max(600));
        // Taken or refused, and nothing else.
        if let Ok(image) = read_bytes(&bytes) {
            prop_assert!(!image.to_push().blobs.is_empty());
        }
    });
}

#[test]
fn bigflows_names_carry_the_version() {
    let version = |name: &str| version_in_name(Path::new(name)).ok();
    assert_eq!(version(".image/image-0.1.0.tar").as_deref(), Some("0.1.0"));
    assert_eq!(
        version("image-0.1.0.dev1+gabc-x.tar").as_deref(),
        Some("0.1.0.dev1+gabc-x")
    );
    for name in ["image.tar", "image-.tar", "image-1.0.zip", "image-1.0", ""] {
        assert_eq!(version(name), None, "{name}");
    }
}
