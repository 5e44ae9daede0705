//! The layer that was made before under the same name: what it saves the next one.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use flate2::read::GzDecoder;
use forebay_store::{
    Batch, ObjectDigest, ObjectFile, ObjectInfo, Realisation, Recipe, RecipeKey, Sha256Digest,
    Store,
};
use serde::{Deserialize, Serialize};

use super::super::ImageError;
use super::super::file_layer::ENCODER;
use super::{Copying, Member, Packed, cannot_write};

/// The outputs of the realisation that is kept of a layer by its name.
const LAYER: &str = "layer";
const INVENTORY: &str = "inventory";
/// Changes whenever an inventory is written in another way.
const RECIPE_VERSION: u32 = 1;

/// What is kept of the layer before beside it, in JSON: its members, and the SHA-256 of the
/// project's files by their BLAKE3.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Inventory {
    members: Vec<Member>,
    hashes: BTreeMap<ObjectDigest, Sha256Digest>,
}

/// The layer that was made before under one name, on this machine.
pub(in crate::image) struct LastLayer {
    key: Option<RecipeKey>,
    pub(super) members: BTreeMap<ObjectDigest, Member>,
    hashes: BTreeMap<ObjectDigest, Sha256Digest>,
    pub(super) layer: Option<ObjectFile>,
}

impl LastLayer {
    /// No layer.
    pub(in crate::image) const fn none() -> Self {
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
    pub(in crate::image) fn find(store: &Store, name: &impl Serialize) -> Result<Self, ImageError> {
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
    pub(in crate::image) fn sha256(&self, file: &ObjectDigest) -> Option<Sha256Digest> {
        self.hashes.get(file).copied()
    }

    /// The member that inflates to a section, if its bytes are what they were.
    pub(super) fn member(&self, section: &ObjectDigest) -> Option<Kept<'_>> {
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
    pub(in crate::image) fn replace(
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
            let inventory = batch.put(&super::super::json(&inventory)?)?.digest;
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
pub(super) struct Kept<'a> {
    layer: &'a ObjectFile,
    pub(super) member: Member,
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
    pub(super) fn copy(&mut self, out: &mut impl Write, plain: &mut impl Write) -> io::Result<()> {
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
