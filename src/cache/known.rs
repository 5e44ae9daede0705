//! What entries have said in this run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use forebay_store::{ObjectDigest, ObjectInfo, Realisation, RecipeKey};
use jiff::Timestamp;

use super::entry::Entry;
use crate::bucket::StorageGeneration;

/// Everything that is known so far, and what of it turned out not to be so.
#[derive(Default)]
pub(super) struct Known {
    realisations: HashMap<RecipeKey, Realisation>,
    /// Objects that entries name, and the caches whose entries those are, in their order.
    objects: HashMap<ObjectDigest, (ObjectInfo, BTreeSet<usize>)>,
    /// Small ones that came with the entries.
    inline: HashMap<ObjectDigest, Bytes>,
    /// Entries that were asked for, and of which cache.
    asked: BTreeSet<(usize, RecipeKey)>,
    /// Recipes that were asked for wherever there was a cache to ask.
    sought: BTreeSet<RecipeKey>,
    /// What could not be had although an entry names it.
    lost: BTreeSet<ObjectDigest>,
    /// Which mark of the collector the target had before anything was looked up in it.
    pub(super) mark: Option<StorageGeneration>,
    /// When the target's own entry of this build was written.
    pub(super) closure_written: Option<Timestamp>,
    /// What is in the target already, under its own key, by its outputs.
    stored: BTreeMap<RecipeKey, BTreeMap<String, ObjectDigest>>,
}

impl Known {
    /// Takes in what an entry of the cache with this number says. What was said before stands,
    /// so that the first cache of the list counts before the second.
    pub(super) fn take_in(&mut self, remote: usize, is_target: bool, entry: Entry) {
        for object in &entry.statement.objects {
            let info = object.info();
            let known = self.objects.entry(info.digest);
            let (_, remotes) = known.or_insert_with(|| (info, BTreeSet::new()));
            remotes.insert(remote);
        }
        for (digest, bytes) in entry.inline() {
            self.inline.insert(digest, bytes.clone());
        }
        for (key, outputs) in entry.statement.realisations {
            if is_target {
                self.stored.insert(key, outputs.clone());
            }
            let known = self.realisations.entry(key);
            known.or_insert(Realisation { outputs });
        }
    }

    /// True for the first who asks this cache for this entry.
    pub(super) fn asks(&mut self, remote: usize, key: RecipeKey) -> bool {
        self.asked.insert((remote, key))
    }

    /// True for the first who seeks a recipe.
    pub(super) fn seeks(&mut self, key: RecipeKey) -> bool {
        self.sought.insert(key)
    }

    fn is_whole(&self, outputs: &BTreeMap<String, ObjectDigest>) -> bool {
        outputs.values().all(|digest| !self.lost.contains(digest))
    }

    /// What is known of a recipe, if all of it can still be had.
    pub(super) fn realisation(&self, key: &RecipeKey) -> Option<Realisation> {
        let known = self.realisations.get(key)?;
        self.is_whole(&known.outputs).then(|| known.clone())
    }

    /// Whether an entry has spoken of a recipe.
    pub(super) fn has(&self, key: &RecipeKey) -> bool {
        self.realisations.contains_key(key)
    }

    pub(super) fn realisations(&self) -> impl Iterator<Item = (&RecipeKey, &Realisation)> {
        self.realisations.iter()
    }

    /// What the target's entries said of a recipe, if none of its objects was lost.
    pub(super) fn stored(&self, key: &RecipeKey) -> Option<&BTreeMap<String, ObjectDigest>> {
        let outputs = self.stored.get(key)?;
        self.is_whole(outputs).then_some(outputs)
    }

    /// What an object is, if an entry names it and it was not lost.
    pub(super) fn info(&self, digest: &ObjectDigest) -> Option<ObjectInfo> {
        match self.lost.contains(digest) {
            true => None,
            false => self.objects.get(digest).map(|(info, _)| *info),
        }
    }

    /// The same by the entries of one cache alone.
    pub(super) fn info_in(&self, remote: usize, digest: &ObjectDigest) -> Option<ObjectInfo> {
        let (_, remotes) = self.objects.get(digest)?;
        remotes.contains(&remote).then(|| self.info(digest))?
    }

    /// Whether a cache's entries name an object.
    pub(super) fn is_named_by(&self, remote: usize, digest: &ObjectDigest) -> bool {
        let named = self.objects.get(digest);
        named.is_some_and(|(_, remotes)| remotes.contains(&remote))
    }

    /// Every object that an entry names.
    pub(super) fn objects(&self) -> impl Iterator<Item = ObjectInfo> {
        self.objects.values().map(|(info, _)| *info)
    }

    /// The bytes of an object that came inside an entry.
    pub(super) fn inline(&self, digest: &ObjectDigest) -> Option<Bytes> {
        self.inline.get(digest).cloned()
    }

    pub(super) fn inlines(&self) -> impl Iterator<Item = &Bytes> {
        self.inline.values()
    }

    /// An object that an entry names is nowhere to be had.
    pub(super) fn lose(&mut self, digest: ObjectDigest) {
        self.lost.insert(digest);
    }

    pub(super) fn is_lost(&self, digest: &ObjectDigest) -> bool {
        self.lost.contains(digest)
    }

    pub(super) fn losses(&self) -> usize {
        self.lost.len()
    }
}
