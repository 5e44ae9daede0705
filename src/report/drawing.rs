//! Graphs as SVG. Each graph is drawn once in the page, as a symbol that workflows use.

use std::io::{self, Write};

use super::html::text;
use super::layout::{JOB_HEIGHT, JOB_WIDTH, Layout};
use super::model::Report;
use crate::dags::JobGraph;
use crate::ui::count;

/// As many characters as a job's box has room for.
const ROOM: usize = 23;

/// How many jobs a drawing's description names.
const DESCRIBED: usize = 30;

/// Writes all graphs as symbols, out of sight. Gives their layouts; nothing for what is too big.
pub(super) fn write_symbols(
    report: &Report,
    output: &mut dyn Write,
) -> io::Result<Vec<Option<Layout>>> {
    let layouts: Vec<_> = report.graphs.iter().map(Layout::of).collect();
    output.write_all(
        br#"<svg class="symbols" width="0" height="0" aria-hidden="true" focusable="false">
<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="arrow" d="M0.5 0.5 7.5 4 0.5 7.5z"/></marker></defs>
"#,
    )?;
    for (index, (graph, layout)) in report.graphs.iter().zip(&layouts).enumerate() {
        if let Some(layout) = layout {
            symbol(index, graph, layout, output)?;
        }
    }
    output.write_all(b"</svg>\n")?;
    Ok(layouts)
}

fn symbol(
    index: usize,
    graph: &JobGraph,
    layout: &Layout,
    output: &mut dyn Write,
) -> io::Result<()> {
    let Layout { width, height, .. } = layout;
    writeln!(
        output,
        r#"<symbol id="graph-{index}" viewBox="0 0 {width} {height}">"#
    )?;
    for points in &layout.edges {
        output.write_all(br#"<path class="edge" marker-end="url(#arrow)" d=""#)?;
        path(points, output)?;
        output.write_all(b"\"/>\n")?;
    }
    for (job, (x, y)) in graph.jobs.iter().zip(&layout.jobs) {
        let (middle, base) = (x + JOB_WIDTH / 2, y + JOB_HEIGHT / 2 + 4);
        writeln!(
            output,
            r#"<g><title>{}</title><rect class="job" x="{x}" y="{y}" width="{JOB_WIDTH}" height="{JOB_HEIGHT}" rx="7"/><text class="job-name" x="{middle}" y="{base}">{}</text></g>"#,
            text(job),
            text(fitting(job)),
        )?;
    }
    output.write_all(b"</symbol>\n")
}

/// A curve from column to column, a straight line where one is crossed.
fn path(points: &[(i32, i32)], output: &mut dyn Write) -> io::Result<()> {
    let mut last = None;
    for (at, &(x, y)) in points.iter().enumerate() {
        match last {
            None => write!(output, "M{x} {y}")?,
            Some((from_x, from_y)) if at % 2 == 1 && from_y != y => {
                let middle = (from_x + x) / 2;
                write!(output, "C{middle} {from_y} {middle} {y} {x} {y}")?;
            }
            Some(_) => write!(output, "L{x} {y}")?,
        }
        last = Some((x, y));
    }
    Ok(())
}

/// The name, without its middle if it is too long: names differ at their ends.
fn fitting(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    if characters.len() <= ROOM {
        return name.to_owned();
    }
    let half = (ROOM - 1) / 2;
    let (start, end) = (&characters[..half], &characters[characters.len() - half..]);
    start.iter().chain(['…'].iter()).chain(end).collect()
}

/// A bigger drawing is shown as a whole first, and can be asked for in its own size.
const BIG: (i32, i32) = (1100, 520);

/// Writes the place where a graph is seen.
pub(super) fn write_use(
    workflow: &str,
    index: usize,
    graph: &JobGraph,
    layout: Option<&Layout>,
    output: &mut dyn Write,
) -> io::Result<()> {
    let Some(Layout {
        width,
        height,
        implied,
        ..
    }) = layout
    else {
        return writeln!(
            output,
            r#"<p class="quiet">{} are too many to draw.</p>"#,
            count(graph.jobs.len(), "job")
        );
    };
    let is_big = *width > BIG.0 || *height > BIG.1;
    if is_big {
        output
            .write_all(b"<label class=\"full\"><input type=\"checkbox\"> In full size</label>\n")?;
    }
    writeln!(
        output,
        r##"<div class="graph{}" tabindex="0" role="group" aria-label="Graph of {}"><svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{}"><use href="#graph-{index}"/></svg></div>"##,
        if is_big { " big" } else { "" },
        text(workflow),
        text(described(graph)),
    )?;
    if *implied > 0 {
        let lines = count(*implied, "line");
        writeln!(
            output,
            r#"<p class="quiet">{lines} that others imply {} not drawn.</p>"#,
            if *implied == 1 { "is" } else { "are" }
        )?;
    }
    Ok(())
}

/// The graph in words.
fn described(graph: &JobGraph) -> String {
    let mut words = count(graph.jobs.len(), "job");
    for (index, job) in graph.jobs.iter().enumerate().take(DESCRIBED) {
        words.push_str(if index == 0 { ": " } else { "; " });
        words.push_str(job);
        let before = graph
            .before(index)
            .filter_map(|before| graph.jobs.get(before));
        let before: Vec<_> = before.map(String::as_str).collect();
        if !before.is_empty() {
            words.push_str(" after ");
            words.push_str(&before.join(", "));
        }
    }
    if graph.jobs.len() > DESCRIBED {
        words.push_str("; and more");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(fitting("measure"), "measure");
        let name = fitting("load_the_table_of_yesterday_into_the_warehouse");
        assert_eq!(name, "load_the_ta…e_warehouse");
        assert_eq!(name.chars().count(), ROOM);
    }

    #[test]
    fn a_graph_can_be_read_aloud() {
        let graph = JobGraph {
            jobs: ["a", "b", "c"].map(str::to_owned).to_vec(),
            edges: vec![(0, 2), (1, 2)],
        };
        assert_eq!(described(&graph), "3 jobs: a; b; c after a, b");
    }
}
