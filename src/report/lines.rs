//! Texts that have most of their lines in common, kept once: hundreds of versions of DAG files are
//! little more than what changed in them.

use std::collections::HashMap;

/// A match shorter than this is written out: runs that are cut at every blank line say more
/// numbers than they save.
const SHORTEST_MATCH: usize = 3;

/// How many places of a line are looked at.
const PLACES: usize = 32;

/// Lines of many texts.
#[derive(Default)]
pub(super) struct LinePool<'a> {
    lines: Vec<&'a str>,
    places: HashMap<&'a str, Vec<usize>>,
}

impl<'a> LinePool<'a> {
    /// Adds a text. Gives it as runs in [`Self::lines`]: a start and a length each, one after
    /// the other, flat.
    pub(super) fn add(&mut self, text: &'a str) -> Vec<usize> {
        let text: Vec<&str> = text.split('\n').collect();
        let mut runs: Vec<(usize, usize)> = Vec::new();
        let mut at = 0;
        // Where the last match ended, and how many lines were written out since.
        let (mut end, mut written) = (0, 0);
        while let Some(line) = text.get(at) {
            let rest = text.get(at..).unwrap_or_default();
            let (start, length) = match self.longest_match(rest, [end, end + written]) {
                Some((start, length)) if length >= SHORTEST_MATCH => {
                    (end, written) = (start + length, 0);
                    (start, length)
                }
                _ => {
                    written += 1;
                    (self.push(line), 1)
                }
            };
            match runs.last_mut() {
                Some((run, run_length)) if *run + *run_length == start => *run_length += length,
                _ => runs.push((start, length)),
            }
            at += length;
        }
        let runs = runs.into_iter();
        runs.flat_map(|(start, length)| [start, length]).collect()
    }

    /// All lines.
    pub(super) fn lines(&self) -> &[&'a str] {
        &self.lines
    }

    fn push(&mut self, line: &'a str) -> usize {
        let place = self.lines.len();
        self.lines.push(line);
        self.places.entry(line).or_default().push(place);
        place
    }

    /// `likely`: places to look at beside the latest ones of the first line: where a text goes on
    /// after lines that were added, or replaced as many.
    fn longest_match(&self, text: &[&str], likely: [usize; 2]) -> Option<(usize, usize)> {
        let places = self.places.get(text.first()?)?;
        let length = |start: usize| {
            let known = self.lines.get(start..).unwrap_or_default();
            let pairs = known.iter().zip(text);
            pairs.take_while(|(one, other)| one == other).count()
        };
        let candidates = places.iter().rev().take(PLACES).copied().chain(likely);
        let found = candidates.map(|start| (start, length(start)));
        found.max_by_key(|(start, length)| (*length, *start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn restored(pool: &LinePool<'_>, runs: &[usize]) -> String {
        let runs = runs
            .chunks(2)
            .flat_map(|run| &pool.lines[run[0]..run[0] + run[1]]);
        runs.copied().collect::<Vec<_>>().join("\n")
    }

    proptest! {
        #[test]
        fn texts_come_back_as_they_were(texts in prop::collection::vec("[ab\n]{0,40}", 0..9)) {
            let mut pool = LinePool::default();
            let runs: Vec<_> = texts.iter().map(|text| pool.add(text)).collect();
            for (text, runs) in texts.iter().zip(&runs) {
                prop_assert_eq!(&restored(&pool, runs), text);
            }
        }
    }

    #[test]
    fn another_version_costs_what_changed() {
        let text: String = (0..400).map(|line| format!("{line}\n\n)\n")).collect();
        let changed = text.replace("200\n", "two hundred\n");
        let mut pool = LinePool::default();
        assert_eq!(pool.add(&text).len(), 2);
        let lines = pool.lines().len();
        assert_eq!(pool.add(&changed).len(), 6);
        assert_eq!(pool.lines().len(), lines + 1);
    }
}
