//! What is reachable, computed in memory over small integers.

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::thread;

use rusqlite::{Connection, Transaction, params};

use crate::index::{self, checksum};
use crate::{ObjectDigest, RecipeKey};

/// One row of `objects`.
#[derive(Debug)]
pub(crate) struct ObjectRow {
    pub(crate) id: i64,
    pub(crate) digest: ObjectDigest,
    pub(crate) size: u64,
    pub(crate) pack: Option<(i64, u64)>,
    /// Whether somebody needs it.
    pub(crate) kept: bool,
    /// Since when it is condemned, in seconds since 1970.
    pub(crate) condemned: Option<i64>,
}

/// One row of `realisations`; its outputs are positions in [`Marked::objects`], none for
/// those that are not in the store.
#[derive(Debug)]
pub(crate) struct RealisationRow {
    pub(crate) id: i64,
    pub(crate) key: RecipeKey,
    pub(crate) sequence: i64,
    pub(crate) outputs: Vec<Option<usize>>,
}

/// Everything that the index says, and what of it is needed.
#[derive(Debug)]
pub(crate) struct Marked {
    /// Sorted by digest.
    pub(crate) objects: Vec<ObjectRow>,
    pub(crate) realisations: Vec<RealisationRow>,
    /// What roots name and the index does not know.
    pub(crate) rooted_unknown: HashSet<ObjectDigest>,
}

/// Rows that condemning adds and removes, by object id.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    condemned: Vec<i64>,
    spared: Vec<i64>,
}

impl Marked {
    /// Marks what roots and `leased` reach, then unneeded realisations within `budget` bytes.
    ///
    /// Of the objects, which are most of it, each of the two connections reads a half: they
    /// see the same moment.
    pub(crate) fn new(
        connection: &Connection,
        other: Connection,
        leased: &HashSet<ObjectDigest>,
        budget: Option<u64>,
    ) -> rusqlite::Result<Self> {
        let objects = load_objects(connection, other)?;
        let mut marked = Self {
            realisations: load_realisations(connection, &objects)?,
            objects,
            rooted_unknown: HashSet::new(),
        };
        for root in index::roots(connection)? {
            let unknown = marked.keep(&root.objects);
            marked.rooted_unknown.extend(unknown);
        }
        let mut leased: Vec<_> = leased.iter().copied().collect();
        leased.sort_unstable();
        marked.keep(&leased);
        if let Some(budget) = budget {
            marked.keep_newest(budget);
        }
        Ok(marked)
    }

    /// Keeps these, which are sorted; those that are not there.
    fn keep(&mut self, digests: &[ObjectDigest]) -> Vec<ObjectDigest> {
        let mut unknown = Vec::new();
        let mut at = 0;
        for digest in digests {
            at = first_from(&self.objects, at, digest);
            match self.objects.get_mut(at) {
                Some(row) if row.digest == *digest => row.kept = true,
                _ => unknown.push(*digest),
            }
        }
        unknown
    }

    /// The position of an object.
    pub(crate) fn find(&self, digest: &ObjectDigest) -> Option<usize> {
        find(&self.objects, digest)
    }

    /// Keeps realisations that nobody needs, from the newest on, while all that is kept
    /// has no more than `budget` bytes.
    fn keep_newest(&mut self, budget: u64) {
        let mut size: u64 = self.kept().map(|row| row.size).sum();
        let mut order: Vec<usize> = (0..self.realisations.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(self.realisations.get(*at).map(|r| r.sequence)));
        for at in order {
            let outputs = self.realisations.get(at).map(|row| row.outputs.as_slice());
            let Some(mut outputs) =
                outputs.and_then(|outputs| outputs.iter().copied().collect::<Option<Vec<usize>>>())
            else {
                continue;
            };
            outputs.sort_unstable();
            outputs.dedup();
            let added: u64 = outputs
                .iter()
                .filter_map(|output| self.objects.get(*output))
                .filter(|row| !row.kept)
                .map(|row| row.size)
                .sum();
            size = size.saturating_add(added);
            if size > budget {
                return;
            }
            for output in outputs {
                if let Some(row) = self.objects.get_mut(output) {
                    row.kept = true;
                }
            }
        }
    }

    /// The objects that are needed.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &ObjectRow> {
        self.objects.iter().filter(|row| row.kept)
    }

    /// Condemns what is not needed, and spares what is.
    pub(crate) fn condemn(&mut self, now: i64) -> Changes {
        let mut changes = Changes::default();
        for row in &mut self.objects {
            match (row.kept, row.condemned) {
                (true, Some(_)) => {
                    row.condemned = None;
                    changes.spared.push(row.id);
                }
                (false, None) => {
                    row.condemned = Some(now);
                    changes.condemned.push(row.id);
                }
                _ => {}
            }
        }
        changes
    }
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.condemned.is_empty() && self.spared.is_empty()
    }

    pub(crate) fn write(&self, transaction: &Transaction<'_>, now: i64) -> rusqlite::Result<()> {
        let mut insert =
            transaction.prepare("INSERT INTO condemned (object, since) VALUES (?1, ?2)")?;
        for id in &self.condemned {
            insert.execute(params![id, now])?;
        }
        let mut delete = transaction.prepare("DELETE FROM condemned WHERE object = ?1")?;
        for id in &self.spared {
            delete.execute([id])?;
        }
        Ok(())
    }
}

/// The first id of the upper half: ids are the first 62 bits of digests.
const MIDDLE: i64 = 1 << 61;

fn load_objects(connection: &Connection, other: Connection) -> rusqlite::Result<Vec<ObjectRow>> {
    let (lower, upper) = thread::scope(|scope| {
        let upper = scope.spawn(move || load_between(&other, MIDDLE, i64::MAX));
        let lower = load_between(connection, i64::MIN, MIDDLE - 1);
        let upper = upper.join();
        (lower, upper.unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let mut objects = lower?;
    objects.append(&mut upper?);
    // Ids follow the digests, but for the few whose place was taken.
    if !objects.is_sorted_by_key(|row| row.digest) {
        objects.sort_unstable_by_key(|row| row.digest);
    }
    Ok(objects)
}

/// The objects whose ids are in that range, sorted by id.
fn load_between(connection: &Connection, from: i64, to: i64) -> rusqlite::Result<Vec<ObjectRow>> {
    let mut condemned: Vec<(i64, i64)> = connection
        .prepare(
            "SELECT object, since FROM condemned
             WHERE object BETWEEN ?1 AND ?2 ORDER BY object DESC",
        )?
        .query_map([from, to], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut statement = connection.prepare(
        "SELECT digest, sha256, size, pack, offset, checksum, id FROM objects
         WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
    )?;
    let mut objects: Vec<ObjectRow> = Vec::new();
    let mut rows = statement.query([from, to])?;
    while let Some(row) = rows.next()? {
        let (info, pack) = index::object(row, 0)?;
        let id = row.get(6)?;
        if !index::can_have_id(&info.digest, id) {
            let what = format!("object {} is where nobody looks for it", info.digest);
            return Err(checksum::damage(&what));
        }
        let since = condemned.pop_if(|(object, _)| *object == id);
        objects.push(ObjectRow {
            id,
            digest: info.digest,
            size: info.size,
            pack,
            kept: false,
            condemned: since.map(|(_, since)| since),
        });
    }
    Ok(objects)
}

fn load_realisations(
    connection: &Connection,
    objects: &[ObjectRow],
) -> rusqlite::Result<Vec<RealisationRow>> {
    let mut realisations: Vec<RealisationRow> = Vec::new();
    let mut checksums: Vec<(i64, Vec<(String, ObjectDigest)>)> = Vec::new();
    let mut statement = connection.prepare(
        "SELECT id, key, sequence, checksum, name, digest FROM realisations
         LEFT JOIN realisation_outputs ON realisation = id ORDER BY id, name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        if realisations.last().is_none_or(|last| last.id != id) {
            realisations.push(RealisationRow {
                id,
                key: RecipeKey::from_bytes(row.get(1)?),
                sequence: row.get(2)?,
                outputs: Vec::new(),
            });
            checksums.push((row.get(3)?, Vec::new()));
        }
        if let (Some(last), Some((_, named)), Some(name)) =
            (realisations.last_mut(), checksums.last_mut(), row.get(4)?)
        {
            let digest = ObjectDigest::from_bytes(row.get(5)?);
            last.outputs.push(find(objects, &digest));
            named.push((name, digest));
        }
    }
    for (row, (sum, named)) in realisations.iter().zip(checksums) {
        let outputs = named.iter().map(|(name, digest)| (&**name, digest));
        let expected = checksum::of_realisation(&row.key, row.sequence, outputs)?;
        checksum::check(sum, expected, || format!("realisation {}", row.key))?;
    }
    Ok(realisations)
}

fn find(objects: &[ObjectRow], digest: &ObjectDigest) -> Option<usize> {
    objects.binary_search_by_key(digest, |row| row.digest).ok()
}

/// The first position, not before `at`, whose digest is not less. Quick if it is near.
fn first_from(objects: &[ObjectRow], mut at: usize, digest: &ObjectDigest) -> usize {
    let mut step = 1;
    while objects
        .get(at + step)
        .is_some_and(|row| row.digest < *digest)
    {
        at += step;
        step *= 2;
    }
    let end = (at + step).min(objects.len());
    let near = objects.get(at..end).unwrap_or_default();
    at + near.partition_point(|row| row.digest < *digest)
}
