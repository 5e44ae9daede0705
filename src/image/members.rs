//! Archives of files in gzip members, of which those that did not change are taken over
//! from the layer before.
//!
//! A gzip file may have many members (RFC 1952, section 2.2), and a tar archive may be cut
//! anywhere. So the files of a layer are dealt out to members by a rule that looks at nothing
//! but the files themselves: whatever was built before, the same files give the same bytes, and
//! where one file changed, one member has to be compressed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write};

use flate2::read::{GzDecoder, MultiGzDecoder};
use flate2::{Compression, GzBuilder};
use forebay_store::{
    Batch, ObjectDigest, ObjectFile, ObjectInfo, Realisation, Recipe, RecipeKey, Sha256Digest,
    Store,
};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::ImageError;
use super::context::BuildContext;
use super::file_layer::{ENCODER, FileContent, Hashing, Tee};
use super::tar::{self, FileTree, Node};

/// What a member inflates to on average, in bytes: the more, the better files are compressed
/// together, and the more has to be done again for one that changed. The sources of Apache Beam
/// and of Airflow grow by 3.7 % over a single stream (with 64 KiB by 8 %, with 256 KiB by 1.7 %).
const USUAL: u64 = 128 << 10;

/// The outputs of the realisation that is kept of a layer by its name.
const LAYER: &str = "layer";
const INVENTORY: &str = "inventory";
/// Changes whenever an inventory is written in another way.
const RECIPE_VERSION: u32 = 1;

/// One gzip member of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    /// Names what it inflates to; see [`Section`].
    section: ObjectDigest,
    /// Where it begins, in bytes.
    offset: u64,
    /// How many bytes it has.
    length: u64,
    /// Their BLAKE3.
    digest: ObjectDigest,
}

/// A compressed tar archive in a temporary file.
///
/// As bytes: gzip members (RFC 1952; no time, no name, operating system 255), one after another,
/// each with one DEFLATE stream of [`ENCODER`]. What they inflate to, together, is the archive
/// of [`tar`]: entries sorted by path, two blocks of zeros. A member ends after every
/// entry of which [`ends_after`] says so, before every file of [`USUAL`] bytes or more, and
/// before and after the content of an archive within the archive, which has members of its own.
#[derive(Debug)]
pub(super) struct Packed {
    file: File,
    members: Vec<Member>,
    /// SHA-256 of the tar archive.
    pub(super) sha256: Sha256Digest,
    /// The bytes of the tar archive.
    pub(super) size: u64,
}

impl Packed {
    /// The tar archive.
    pub(super) fn reader(&self) -> io::Result<impl Read + '_> {
        Ok(MultiGzDecoder::new(self.compressed()?))
    }

    fn compressed(&self) -> io::Result<io::BufReader<&File>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        Ok(io::BufReader::with_capacity(64 << 10, file))
    }
}

/// A run of an archive that becomes one member.
///
/// Its name is the BLAKE3 of its parts: headers and padding as they are, of a file its digest.
/// So a member is found without reading the files.
#[derive(Default)]
struct Section<'a> {
    parts: Vec<Part<'a>>,
    name: blake3::Hasher,
}

enum Part<'a> {
    Bytes(Vec<u8>),
    File {
        path: &'a str,
        content: &'a FileContent,
        size: u64,
    },
}

impl<'a> Section<'a> {
    fn bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.name.update(&(bytes.len() as u64).to_le_bytes());
        self.name.update(bytes);
        match self.parts.last_mut() {
            Some(Part::Bytes(last)) => last.extend_from_slice(bytes),
            _ => self.parts.push(Part::Bytes(bytes.to_vec())),
        }
    }

    fn file(&mut self, path: &'a str, content: &'a FileContent, size: u64) {
        // No run of bytes is that long: a file's digest cannot be taken for bytes.
        self.name.update(&u64::MAX.to_le_bytes());
        self.name.update(content.digest().as_bytes());
        self.parts.push(Part::File {
            path,
            content,
            size,
        });
    }
}

/// Whether a member ends after the entry at `path`, which takes `size` bytes of the archive: by
/// the path's hash, with a chance of `size` in [`USUAL`]. So members end where they did
/// although other entries came, changed or went.
fn ends_after(path: &str, size: u64) -> bool {
    let hash = ObjectDigest::of(path.as_bytes());
    let first = hash.as_bytes().first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(first) / (u64::MAX / USUAL) < size
}

/// Compresses `tree` into one archive. What `last` has of it is not compressed again.
///
/// # Errors
/// A file that changed since the scan, or one that cannot be read or written.
pub(super) fn pack(
    tree: &FileTree<FileContent>,
    context: &BuildContext<'_>,
    last: &LastLayer,
) -> Result<Packed, ImageError> {
    let file = tempfile::tempfile().map_err(ImageError::io("cannot make a temporary file"))?;
    let mut packer = Packer {
        context,
        last,
        out: BufWriter::with_capacity(64 << 10, file),
        position: 0,
        plain: Hashing::default(),
        members: Vec::new(),
    };
    let mut section = Section::default();
    let mut header = Vec::new();
    for (path, node) in tree.iter() {
        header.clear();
        tar::write_header(&mut header, path, node);
        let Node::File { content, size, .. } = node else {
            section.bytes(&header);
            continue;
        };
        // A large file is alone, so that it is not compressed again because of a small one.
        if *size >= USUAL {
            packer.add(&std::mem::take(&mut section))?;
        }
        section.bytes(&header);
        if let FileContent::Archive(archive) = content {
            packer.add(&std::mem::take(&mut section))?;
            packer.append(archive)?;
        } else if *size > 0 {
            section.file(path, content, *size);
        }
        let padding = tar::padding(*size);
        section.bytes(tar::END.get(..padding).unwrap_or_default());
        if ends_after(path, header.len() as u64 + size + padding as u64) {
            packer.add(&std::mem::take(&mut section))?;
        }
    }
    section.bytes(&tar::END);
    packer.add(&section)?;
    packer.finish()
}

struct Packer<'a> {
    context: &'a BuildContext<'a>,
    last: &'a LastLayer,
    out: BufWriter<File>,
    position: u64,
    plain: Hashing,
    members: Vec<Member>,
}

fn cannot_write() -> impl FnOnce(io::Error) -> ImageError {
    ImageError::io("cannot write a layer")
}

impl Packer<'_> {
    fn add(&mut self, section: &Section<'_>) -> Result<(), ImageError> {
        if section.parts.is_empty() {
            return Ok(());
        }
        let name = ObjectDigest::from_bytes(*section.name.finalize().as_bytes());
        let member = match self.last.member(&name) {
            Some(mut kept) => {
                kept.copy(&mut self.out, &mut self.plain)
                    .map_err(cannot_write())?;
                kept.member
            }
            None => self.compress(name, section)?,
        };
        self.push(member);
        Ok(())
    }

    fn push(&mut self, member: Member) {
        self.members.push(Member {
            offset: self.position,
            ..member
        });
        self.position += member.length;
    }

    fn compress(
        &mut self,
        name: ObjectDigest,
        section: &Section<'_>,
    ) -> Result<Member, ImageError> {
        let counted = Counted {
            out: &mut self.out,
            blake3: blake3::Hasher::new(),
            length: 0,
        };
        let encoder = GzBuilder::new()
            .operating_system(255)
            .write(counted, Compression::new(6));
        let mut both = Tee(encoder, &mut self.plain);
        for part in &section.parts {
            match part {
                Part::Bytes(bytes) => both.write_all(bytes).map_err(cannot_write())?,
                Part::File {
                    path,
                    content,
                    size,
                } => {
                    let copied = io::copy(&mut content.reader(self.context)?, &mut both)
                        .map_err(ImageError::io(format!("cannot copy /{path} into a layer")))?;
                    if copied != *size {
                        return Err(ImageError::NotInContext {
                            path: (*path).to_owned(),
                        });
                    }
                }
            }
        }
        let Tee(encoder, _) = both;
        let counted = encoder.finish().map_err(cannot_write())?;
        Ok(Member {
            section: name,
            offset: 0,
            length: counted.length,
            digest: ObjectDigest::from_bytes(*counted.blake3.finalize().as_bytes()),
        })
    }

    /// Adds an archive within this one, with its own members.
    fn append(&mut self, archive: &Packed) -> Result<(), ImageError> {
        let compressed = archive.compressed().map_err(cannot_write())?;
        let teed = Copying {
            from: compressed,
            to: &mut self.out,
        };
        io::copy(&mut MultiGzDecoder::new(teed), &mut self.plain).map_err(cannot_write())?;
        archive.members.iter().for_each(|&member| self.push(member));
        Ok(())
    }

    fn finish(self) -> Result<Packed, ImageError> {
        let file = self.out.into_inner();
        Ok(Packed {
            file: file.map_err(|error| cannot_write()(error.into_error()))?,
            members: self.members,
            sha256: Sha256Digest::from_bytes(self.plain.hash.finalize().into()),
            size: self.plain.size,
        })
    }
}

/// Counts and hashes what is written.
struct Counted<W> {
    out: W,
    blake3: blake3::Hasher,
    length: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.blake3.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Copies what is read.
struct Copying<R, W> {
    from: R,
    to: W,
}

impl<R: Read, W: Write> Read for Copying<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.to
            .write_all(buffer.get(..length).unwrap_or_default())?;
        Ok(length)
    }
}

/// What is kept of the layer before beside it, in JSON: its members, and the SHA-256 of the
/// project's files by their BLAKE3.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Inventory {
    members: Vec<Member>,
    hashes: BTreeMap<ObjectDigest, Sha256Digest>,
}

/// The layer that was made before under one name, on this machine.
pub(super) struct LastLayer {
    key: Option<RecipeKey>,
    members: BTreeMap<ObjectDigest, Member>,
    hashes: BTreeMap<ObjectDigest, Sha256Digest>,
    layer: Option<ObjectFile>,
}

impl LastLayer {
    /// No layer.
    pub(super) const fn none() -> Self {
        Self {
            key: None,
            members: BTreeMap::new(),
            hashes: BTreeMap::new(),
            layer: None,
        }
    }

    /// Finds the layer of that name. What was lost of it is made again.
    ///
    /// # Errors
    /// The store.
    pub(super) fn find(store: &Store, name: &impl Serialize) -> Result<Self, ImageError> {
        let key = Recipe::new("layer-members", RECIPE_VERSION, &(ENCODER, name))?.key();
        let none = Self {
            key: Some(key),
            ..Self::none()
        };
        let Some(known) = store.local_realisation(&key)? else {
            return Ok(none);
        };
        let (Some(layer), Some(inventory)) =
            (known.outputs.get(LAYER), known.outputs.get(INVENTORY))
        else {
            return Ok(none);
        };
        let (Ok(layer), Ok(inventory)) = (store.file(layer), store.read(inventory)) else {
            return Ok(none);
        };
        let Ok(inventory) = serde_json::from_slice::<Inventory>(&inventory) else {
            return Ok(none);
        };
        let members = inventory.members.into_iter();
        Ok(Self {
            key: Some(key),
            members: members.map(|member| (member.section, member)).collect(),
            hashes: inventory.hashes,
            layer: Some(layer),
        })
    }

    /// The SHA-256 of a file of which the BLAKE3 is known.
    pub(super) fn sha256(&self, file: &ObjectDigest) -> Option<Sha256Digest> {
        self.hashes.get(file).copied()
    }

    /// The member that inflates to a section, if its bytes are what they were.
    fn member(&self, section: &ObjectDigest) -> Option<Kept<'_>> {
        let mut kept = Kept {
            layer: self.layer.as_ref()?,
            member: *self.members.get(section)?,
            position: 0,
        };
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut kept, &mut hasher).ok()?;
        kept.position = 0;
        (hasher.finalize().as_bytes() == kept.member.digest.as_bytes()).then_some(kept)
    }

    /// Puts `packed` into the store, and remembers it in the place of this layer.
    ///
    /// # Errors
    /// The store.
    pub(super) fn replace(
        &self,
        packed: Packed,
        hashes: BTreeMap<ObjectDigest, Sha256Digest>,
        batch: &mut Batch<'_>,
    ) -> Result<ObjectInfo, ImageError> {
        let info = batch.put_reader(&mut packed.compressed().map_err(cannot_write())?)?;
        if let Some(key) = &self.key {
            let inventory = Inventory {
                members: packed.members,
                hashes,
            };
            let inventory = batch.put(&super::json(&inventory)?)?.digest;
            let outputs = [(LAYER, info.digest), (INVENTORY, inventory)];
            let outputs = outputs.map(|(name, object)| (name.to_owned(), object));
            batch.realise(
                key,
                &Realisation {
                    outputs: outputs.into(),
                },
            )?;
        }
        Ok(info)
    }
}

/// A member of the layer before; reads its bytes.
struct Kept<'a> {
    layer: &'a ObjectFile,
    member: Member,
    position: u64,
}

impl Read for Kept<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.member.length - self.position;
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let (part, _) = buffer.split_at_mut(length);
        self.layer
            .read_exact_at(part, self.member.offset + self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Kept<'_> {
    /// Writes the member to `out`, and what it inflates to into `plain`.
    fn copy(&mut self, out: &mut impl Write, plain: &mut impl Write) -> io::Result<()> {
        let copying = Copying {
            from: &mut *self,
            to: out,
        };
        io::copy(&mut GzDecoder::new(copying), plain)?;
        if self.position == self.member.length {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use forebay_store::Tree;
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
}
