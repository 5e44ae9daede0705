//! Where the jobs of a graph are drawn: in columns, each right of all that it waits for, with
//! few crossings (the layered method of Sugiyama, Tagawa and Toda).
//!
//! The same graph gives the same drawing: ties are broken by the jobs' order, and positions are
//! whole numbers. Everything is bounded, whatever a file contains: circles, thousands of jobs, all
//! pairs of them connected.

use std::collections::BTreeSet;

use crate::dags::JobGraph;

/// The width of a job, in CSS pixels.
pub(super) const JOB_WIDTH: i32 = 184;
/// The height of a job.
pub(super) const JOB_HEIGHT: i32 = 34;
const COLUMN_GAP: i32 = 52;
const ROW_GAP: i32 = 14;
/// The height that a line takes where it passes a column.
const PASSAGE_HEIGHT: i32 = 10;
const MARGIN: i32 = 10;

/// A graph with more jobs is a list, not a picture.
const MOST_JOBS: usize = 1000;
/// With more lines, those that others imply are left out.
const MOST_EDGES: usize = 600;
/// With more passages, lines run straight instead of around jobs.
const MOST_PASSAGES: usize = 4000;
const SWEEPS: usize = 8;

/// A drawn graph. All lengths are CSS pixels.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) width: i32,
    pub(super) height: i32,
    /// The left upper corner of each job.
    pub(super) jobs: Vec<(i32, i32)>,
    /// The lines: points that are alternately where a column is left and where the next one is
    /// entered, so that between the second and the third point a line crosses a column.
    pub(super) edges: Vec<Vec<(i32, i32)>>,
    /// How many lines are not drawn because others imply them.
    pub(super) implied: usize,
}

/// Something in a column: a job, or the passage of a line.
struct Item {
    column: usize,
    height: i32,
    /// The middle.
    y: f64,
    left: Vec<usize>,
    right: Vec<usize>,
}

impl Layout {
    /// Draws a graph; nothing if it has too many jobs, or none.
    pub(super) fn of(graph: &JobGraph) -> Option<Self> {
        let jobs = graph.jobs.len();
        if !(1..=MOST_JOBS).contains(&jobs) {
            return None;
        }
        let columns = columns(jobs, &graph.edges);
        let drawn = match graph.edges.len() > MOST_EDGES {
            true => without_implied(jobs, &graph.edges, &columns),
            false => graph.edges.clone(),
        };
        let implied = graph.edges.len() - drawn.len();
        let column = |job: usize| columns.get(job).copied().unwrap_or_default();
        let span = |(from, to): &(usize, usize)| column(*to).saturating_sub(column(*from));
        let passages: usize = drawn.iter().map(|edge| span(edge).saturating_sub(1)).sum();

        let item = |column, height| Item {
            column,
            height,
            y: 0.0,
            left: Vec::new(),
            right: Vec::new(),
        };
        let mut items: Vec<Item> = (0..jobs).map(|job| item(column(job), JOB_HEIGHT)).collect();
        let mut ways = Vec::with_capacity(drawn.len());
        for edge in &drawn {
            let (from, to) = *edge;
            let mut way = vec![from];
            if passages <= MOST_PASSAGES {
                for passed in column(from) + 1..column(to) {
                    way.push(items.len());
                    items.push(item(passed, PASSAGE_HEIGHT));
                }
            }
            way.push(to);
            // What is in a circle attracts nothing.
            if span(edge) > 0 {
                for step in way.windows(2) {
                    if let [left, right] = *step {
                        items[left].right.push(right);
                        items[right].left.push(left);
                    }
                }
            }
            ways.push(way);
        }
        arrange(&mut items);
        Some(draw(&items, jobs, &ways, implied))
    }
}

/// The column of each job: one right of the last that it waits for. Jobs of a circle come last.
fn columns(jobs: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut after = vec![Vec::new(); jobs];
    let mut waits = vec![0_usize; jobs];
    for &(before, job) in edges {
        after[before].push(job);
        waits[job] += 1;
    }
    let mut columns = vec![0_usize; jobs];
    let mut ready: Vec<usize> = (0..jobs).filter(|job| waits[*job] == 0).collect();
    let mut at = 0;
    while let Some(&job) = ready.get(at) {
        at += 1;
        for &next in &after[job] {
            columns[next] = columns[next].max(columns[job] + 1);
            waits[next] -= 1;
            if waits[next] == 0 {
                ready.push(next);
            }
        }
    }
    let last = ready.iter().map(|job| columns[*job] + 1).max().unwrap_or(0);
    for job in 0..jobs {
        if waits[job] > 0 {
            columns[job] = last;
        }
    }
    columns
}

/// The edges that no longer way stands for. Those of circles stay.
fn without_implied(
    jobs: usize,
    edges: &[(usize, usize)],
    columns: &[usize],
) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..jobs).collect();
    order.sort_by_key(|job| std::cmp::Reverse(columns[*job]));
    let goes_on = |&(from, to): &(usize, usize)| columns[from] < columns[to];
    let mut after = vec![Vec::new(); jobs];
    for &(from, to) in edges.iter().filter(|edge| goes_on(edge)) {
        after[from].push(to);
    }
    // What can be reached from each job, the last columns first.
    let words = jobs.div_ceil(64);
    let mut reach = vec![vec![0_u64; words]; jobs];
    let mut implied = BTreeSet::new();
    for &job in &order {
        after[job].sort_by_key(|next| (columns[*next], *next));
        let mut reached = vec![0_u64; words];
        for &next in &after[job] {
            if reached[next / 64] >> (next % 64) & 1 == 1 {
                implied.insert((job, next));
                continue;
            }
            reached[next / 64] |= 1 << (next % 64);
            for (word, more) in reached.iter_mut().zip(&reach[next]) {
                *word |= more;
            }
        }
        reach[job] = reached;
    }
    let edges = edges.iter().filter(|edge| !implied.contains(edge));
    edges.copied().collect()
}

/// Settles the order in each column, then the heights.
fn arrange(items: &mut [Item]) {
    let count = items.iter().map(|item| item.column + 1).max().unwrap_or(0);
    let mut columns = vec![Vec::new(); count];
    for (index, item) in items.iter().enumerate() {
        columns[item.column].push(index);
    }
    for column in &columns {
        stack(items, column);
    }
    for sweep in 0..SWEEPS {
        let from_left = sweep % 2 == 0;
        for column in in_direction(&mut columns, from_left) {
            let mut wanted: Vec<(f64, usize)> = (column.iter())
                .map(|&index| (wish(items, index, from_left), index))
                .collect();
            // The sort is stable: equals stay as they are.
            wanted.sort_by(|one, other| one.0.total_cmp(&other.0));
            *column = wanted.into_iter().map(|(_, index)| index).collect();
            stack(items, column);
        }
    }
    for sweep in 0..SWEEPS {
        let from_left = sweep % 2 == 0;
        for column in in_direction(&mut columns, from_left) {
            settle(items, column, from_left);
        }
    }
}

fn in_direction(
    columns: &mut [Vec<usize>],
    from_left: bool,
) -> Box<dyn Iterator<Item = &mut Vec<usize>> + '_> {
    match from_left {
        true => Box::new(columns.iter_mut()),
        false => Box::new(columns.iter_mut().rev()),
    }
}

/// Where an item would stand if its neighbours on one side decided; where it is without any.
fn wish(items: &[Item], index: usize, from_left: bool) -> f64 {
    let item = &items[index];
    let neighbours = if from_left { &item.left } else { &item.right };
    if neighbours.is_empty() {
        return item.y;
    }
    let sum: f64 = neighbours.iter().map(|neighbour| items[*neighbour].y).sum();
    sum / neighbours.len() as f64
}

fn distance(upper: &Item, lower: &Item) -> f64 {
    f64::from((upper.height + lower.height) / 2 + ROW_GAP)
}

/// Puts a column's items below each other, around the middle.
fn stack(items: &mut [Item], column: &[usize]) {
    let mut y = 0.0;
    let mut above: Option<usize> = None;
    for &index in column {
        if let Some(above) = above {
            y += distance(&items[above], &items[index]);
        }
        items[index].y = y;
        above = Some(index);
    }
    for &index in column {
        items[index].y -= y / 2.0;
    }
}

/// Moves a column's items towards where they want to be, in their order and apart: halfway between
/// the highest and the lowest that this can be done.
fn settle(items: &mut [Item], column: &[usize], from_left: bool) {
    let wanted: Vec<f64> = (column.iter())
        .map(|&index| wish(items, index, from_left))
        .collect();
    let apart = |upper: usize, lower: usize| distance(&items[column[upper]], &items[column[lower]]);
    let mut lowest = wanted.clone();
    for at in 1..column.len() {
        lowest[at] = lowest[at].max(lowest[at - 1] + apart(at - 1, at));
    }
    let mut highest = wanted;
    for at in (1..column.len()).rev() {
        highest[at - 1] = highest[at - 1].min(highest[at] - apart(at - 1, at));
    }
    for (at, &index) in column.iter().enumerate() {
        items[index].y = f64::midpoint(lowest[at], highest[at]);
    }
}

fn draw(items: &[Item], jobs: usize, ways: &[Vec<usize>], implied: usize) -> Layout {
    let top = |item: &Item| item.y - f64::from(item.height) / 2.0;
    let highest = items.iter().map(top).fold(f64::INFINITY, f64::min);
    let middle = |index: usize| (items[index].y - highest).round() as i32 + MARGIN;
    let left = |index: usize| {
        let column = i32::try_from(items[index].column).unwrap_or(i32::MAX / 1000);
        MARGIN + column * (JOB_WIDTH + COLUMN_GAP)
    };
    let corners = (0..jobs).map(|job| (left(job), middle(job) - JOB_HEIGHT / 2));
    let corners: Vec<_> = corners.collect();
    let edges = ways.iter().map(|way| {
        let last = way.len() - 1;
        let mut points = Vec::with_capacity(2 * last);
        for (at, &index) in way.iter().enumerate() {
            if at > 0 {
                points.push((left(index), middle(index)));
            }
            if at < last {
                points.push((left(index) + JOB_WIDTH, middle(index)));
            }
        }
        points
    });
    let bottom = (0..items.len()).map(|index| middle(index) + items[index].height / 2);
    Layout {
        width: (0..items.len()).map(left).max().unwrap_or(0) + JOB_WIDTH + MARGIN,
        height: bottom.max().unwrap_or(0) + MARGIN,
        jobs: corners,
        edges: edges.collect(),
        implied,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph(jobs: usize, edges: impl IntoIterator<Item = (usize, usize)>) -> JobGraph {
        JobGraph {
            jobs: (0..jobs).map(|job| job.to_string()).collect(),
            edges: edges.into_iter().collect(),
        }
    }

    proptest! {
        #[test]
        fn jobs_stand_apart_and_right_of_what_they_wait_for(
            edges in prop::collection::btree_set((0_usize..12, 0_usize..12), 0..40)
        ) {
            let edges: Vec<_> = edges.into_iter().filter(|(from, to)| from < to).collect();
            let layout = Layout::of(&graph(12, edges.iter().copied())).unwrap();
            for (from, to) in edges {
                prop_assert!(layout.jobs[from].0 < layout.jobs[to].0);
            }
            for (one, &(x, y)) in layout.jobs.iter().enumerate() {
                prop_assert!(x >= 0 && x + JOB_WIDTH <= layout.width);
                prop_assert!(y >= 0 && y + JOB_HEIGHT <= layout.height);
                for &(other_x, other_y) in &layout.jobs[one + 1..] {
                    prop_assert!(x != other_x || (y - other_y).abs() >= JOB_HEIGHT);
                }
            }
        }

        #[test]
        fn whatever_the_edges_are_there_is_one_drawing(
            edges in prop::collection::btree_set((0_usize..9, 0_usize..9), 0..60)
        ) {
            let graph = graph(9, edges);
            prop_assert_eq!(Layout::of(&graph), Layout::of(&graph));
        }
    }

    #[test]
    fn of_all_pairs_only_the_chain_is_drawn() {
        let pairs = (0..200).flat_map(|to| (0..to).map(move |from| (from, to)));
        let layout = Layout::of(&graph(200, pairs)).unwrap();
        assert_eq!((layout.edges.len(), layout.implied), (199, 199 * 198 / 2));
    }

    #[test]
    fn a_chain_is_straight_and_too_much_is_not_drawn() {
        let chain = Layout::of(&graph(200, (1..200).map(|job| (job - 1, job)))).unwrap();
        assert_eq!(chain.height, JOB_HEIGHT + 2 * MARGIN);
        assert_eq!(Layout::of(&graph(MOST_JOBS + 1, [])), None);
        assert_eq!(Layout::of(&graph(0, [])), None);
    }
}
