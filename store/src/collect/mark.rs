//! What is reachable, computed in memory over small integers.

use std::collections::HashSet;

use rusqlite::{Connection, Transaction, params};

use crate::index::{self, checksum};
use crate::{ObjectDigest, RecipeKey};

/// For no more objects than this is memory set aside before they are seen.
const MAX_EXPECTED: usize = 4_000_000;

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
    pub(crate) objects: Vec<ObjectRow>,
    pub(crate) realisations: Vec<RealisationRow>,
    /// What roots name, whether or not it is in the store.
    pub(crate) rooted: Vec<ObjectDigest>,
    by_digest: Positions,
}

/// Rows that condemning adds and removes, by object id.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    condemned: Vec<i64>,
    spared: Vec<i64>,
}

impl Marked {
    /// Marks what roots and `leased` reach, then unneeded realisations within `budget` bytes.
    pub(crate) fn new(
        connection: &Connection,
        leased: &HashSet<ObjectDigest>,
        budget: Option<u64>,
    ) -> rusqlite::Result<Self> {
        let mut marked = Self::load(connection)?;
        for root in index::roots(connection)? {
            root.objects.iter().for_each(|digest| marked.keep(digest));
            marked.rooted.extend(root.objects);
        }
        for digest in leased {
            marked.keep(digest);
        }
        if let Some(budget) = budget {
            marked.keep_newest(budget);
        }
        Ok(marked)
    }

    fn load(connection: &Connection) -> rusqlite::Result<Self> {
        // An estimate, without counting: ids are given in order.
        let count: i64 =
            connection.query_row("SELECT coalesce(max(id), 0) FROM objects", [], |row| {
                row.get(0)
            })?;
        let count = usize::try_from(count).unwrap_or(0).min(MAX_EXPECTED);
        let mut objects = Vec::with_capacity(count);
        let mut statement = connection.prepare(
            "SELECT digest, sha256, size, pack, offset, checksum, objects.id, since FROM objects
             LEFT JOIN condemned ON object = objects.id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (info, pack) = index::object(row, 0)?;
            objects.push(ObjectRow {
                id: row.get(6)?,
                digest: info.digest,
                size: info.size,
                pack,
                kept: false,
                condemned: row.get(7)?,
            });
        }
        let by_digest = Positions::of(&objects);
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
                last.outputs.push(by_digest.find(&objects, &digest));
                named.push((name, digest));
            }
        }
        for (row, (sum, named)) in realisations.iter().zip(checksums) {
            let outputs = named.iter().map(|(name, digest)| (&**name, digest));
            let expected = checksum::of_realisation(&row.key, row.sequence, outputs)?;
            checksum::check(sum, expected, || format!("realisation {}", row.key))?;
        }
        Ok(Self {
            objects,
            realisations,
            rooted: Vec::new(),
            by_digest,
        })
    }

    fn keep(&mut self, digest: &ObjectDigest) {
        let position = self.by_digest.find(&self.objects, digest);
        if let Some(row) = position.and_then(|at| self.objects.get_mut(at)) {
            row.kept = true;
        }
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

/// Where objects are in a list, by the first eight bytes of their digests, sorted. For a
/// million it is a quarter of a hash map's size, and made in a fraction of its time.
#[derive(Debug)]
struct Positions(Vec<(u64, usize)>);

impl Positions {
    fn of(objects: &[ObjectRow]) -> Self {
        let objects = objects.iter().enumerate();
        let mut positions: Vec<_> = objects
            .map(|(at, row)| (start_of(&row.digest), at))
            .collect();
        positions.sort_unstable();
        Self(positions)
    }

    fn find(&self, objects: &[ObjectRow], digest: &ObjectDigest) -> Option<usize> {
        let start = start_of(digest);
        let first = self.0.partition_point(|(other, _)| *other < start);
        let alike = self.0.iter().skip(first);
        alike
            .take_while(|(other, _)| *other == start)
            .map(|(_, at)| *at)
            .find(|at| objects.get(*at).is_some_and(|row| row.digest == *digest))
    }
}

fn start_of(digest: &ObjectDigest) -> u64 {
    let first = digest.as_bytes().first_chunk();
    first.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
