//! One generation: who and when, what has changed, its images (`image.rs`), its workflows.

use std::io::{self, Write};

use super::data::base;
use super::drawing;
use super::html::text;
use super::image;
use super::layout::Layout;
use super::model::{Change, Generation, Report, Since, Workflow};
use super::words::{self, short};
use crate::environment::Changed;
use crate::ui::{bytes, count};

/// So many workflows are shown unfolded.
const UNFOLDED: usize = 3;

/// Writes the part of the page that shows the generation at `index`.
pub(super) fn write(
    report: &Report,
    index: usize,
    generation: &Generation,
    layouts: &[Option<Layout>],
    output: &mut dyn Write,
) -> io::Result<()> {
    let number = generation.generation;
    let is_live = index == 0;
    write!(
        output,
        r#"<article class="panel{}" id="g{number}" aria-labelledby="h{number}">
<h2 id="h{number}">Generation {number}{}</h2>
"#,
        if is_live { " live" } else { "" },
        if is_live {
            r#" <span class="badge live">live</span>"#
        } else {
            ""
        },
    )?;
    facts(report, generation, output)?;
    if let Some(since) = &generation.since {
        changes(generation, since, output)?;
    }
    // What it shares, it shares with the image that was live before.
    let before = report.generations.get(index + 1);
    let before = before.and_then(|before| report.images.get(&before.image));
    for digest in &generation.images {
        if let Some(found) = report.images.get(digest) {
            image::write(report, generation, *digest, found, before, output)?;
        }
    }
    workflows(report, generation, layouts, output)?;
    output.write_all(b"</article>\n")
}

fn facts(report: &Report, generation: &Generation, output: &mut dyn Write) -> io::Result<()> {
    let is_shown = |number: &u64| report.generations.iter().any(|g| g.generation == *number);
    output.write_all(b"<dl class=\"facts\">\n")?;
    let mut fact =
        |name: &str, value: String| writeln!(output, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    let moment = generation.created_at;
    fact(
        "When",
        format!(
            "<time datetime=\"{moment}\">{} {}</time>",
            words::date(moment),
            words::clock(moment)
        ),
    )?;
    fact(
        "Who",
        format!("<bdi>{}</bdi>", text(&generation.created_by)),
    )?;
    let target = generation.rollback_of.filter(is_shown);
    fact(
        "What",
        match target {
            Some(target) => format!(r##"<a href="#g{target}">back to {target}</a>"##),
            None => text(words::action(generation)).to_string(),
        },
    )?;
    fact(
        "Version",
        format!("<bdi>{}</bdi>", text(&generation.version)),
    )?;
    if let Some(commit) = &generation.commit {
        let dirty = match generation.dirty {
            true => r#" <span class="badge dirty">with uncommitted changes</span>"#,
            false => "",
        };
        fact(
            "Commit",
            format!(
                "<code title=\"{}\">{}</code>{dirty}",
                text(commit),
                text(short(commit))
            ),
        )?;
    }
    fact(
        "Recorded by",
        format!("<bdi>{}</bdi>", text(&generation.program)),
    )?;
    output.write_all(b"</dl>\n")
}

fn changes(generation: &Generation, since: &Since, output: &mut dyn Write) -> io::Result<()> {
    let number = since.generation;
    writeln!(
        output,
        r##"<section><h3>Since <a href="#g{number}">generation {number}</a></h3>"##
    )?;
    let of = |change| {
        let workflows = generation.workflows.iter();
        workflows.filter(move |workflow| workflow.change == Some(change))
    };
    let mut something = false;
    let mut list = |name: &str, items: Vec<String>, output: &mut dyn Write| {
        if items.is_empty() {
            return Ok(());
        }
        something = true;
        let many = items.len() > 12;
        let label = format!("{} <span class=\"quiet\">{}</span>", name, items.len());
        match many {
            true => write!(
                output,
                "<details class=\"changes\"><summary>{label}</summary>"
            )?,
            false => write!(output, "<div class=\"changes\"><h4>{label}</h4>")?,
        }
        output.write_all(b"<ul>")?;
        for item in items {
            write!(output, "<li>{item}</li>")?;
        }
        writeln!(output, "</ul></{}>", if many { "details" } else { "div" })
    };
    if let Some([from, to]) = &since.base {
        let from = mark("del", &base(from.as_ref()));
        let to = mark("ins", &base(to.as_ref()));
        list("Base", vec![format!("{from} {to}")], output)?;
    }
    let packages = since.packages.iter().flatten();
    list(
        "Packages",
        packages
            .map(|package| changed(package, String::clone))
            .collect(),
        output,
    )?;
    let files = since.files.iter().flatten();
    list(
        "Project files",
        files.map(|file| changed(file, |_| String::new())).collect(),
        output,
    )?;
    let added = of(Change::Added).map(|workflow| mark("ins", &workflow.workflow));
    let changed =
        of(Change::Changed).map(|workflow| format!("<bdi>{}</bdi>", text(&workflow.workflow)));
    let removed = since.removed.iter().map(|workflow| mark("del", workflow));
    list(
        "DAG files",
        added.chain(removed).chain(changed).collect(),
        output,
    )?;
    if since.packages.is_none() {
        output.write_all(
            b"<p class=\"quiet\">What is in one of the images was not recorded.</p>\n",
        )?;
    } else if !something {
        output.write_all(b"<p class=\"quiet\">Nothing is different.</p>\n")?;
    }
    output.write_all(b"</section>\n")
}

fn mark(element: &str, name: &str) -> String {
    format!("<{element}><bdi>{}</bdi></{element}>", text(name))
}

/// A change, with its values where `show` has words for them.
fn changed<T>(change: &Changed<T>, show: impl Fn(&T) -> String) -> String {
    let name = text(&change.name);
    let shown = |value| match show(value) {
        words if words.is_empty() => String::new(),
        words => format!(" {}", text(words)),
    };
    match (&change.from, &change.to) {
        (None, Some(to)) => format!("<ins><bdi>{name}</bdi>{}</ins>", shown(to)),
        (Some(from), None) => format!("<del><bdi>{name}</bdi>{}</del>", shown(from)),
        (Some(from), Some(to)) => match (shown(from), shown(to)) {
            (from, to) if from.is_empty() && to.is_empty() => format!("<bdi>{name}</bdi>"),
            (from, to) => format!("<bdi>{name}</bdi> <del>{from}</del> <ins>{to}</ins>"),
        },
        (None, None) => String::new(),
    }
}

fn workflows(
    report: &Report,
    generation: &Generation,
    layouts: &[Option<Layout>],
    output: &mut dyn Write,
) -> io::Result<()> {
    let workflows = &generation.workflows;
    writeln!(
        output,
        "<section><h3>Workflows <span class=\"quiet\">{}</span></h3>",
        workflows.len()
    )?;
    let open = if workflows.len() <= UNFOLDED {
        " open"
    } else {
        ""
    };
    for workflow in workflows {
        write!(
            output,
            "<details class=\"workflow\"{open}><summary><bdi class=\"name\">{}</bdi>",
            text(&workflow.workflow)
        )?;
        output.write_all(match workflow.change {
            Some(Change::Added) => b" <span class=\"badge new\">new</span>".as_slice(),
            Some(Change::Changed) => b" <span class=\"badge changed\">changed</span>",
            Some(Change::Unchanged) | None => b"",
        })?;
        if workflow.ends.is_some() {
            output.write_all(b" <span class=\"badge dirty\">comes to its end</span>")?;
        }
        let graph = workflow
            .graph
            .and_then(|index| Some((index, report.graphs.get(index)?)));
        let mut quiet = Vec::new();
        quiet.extend(workflow.schedule.clone());
        quiet.extend(graph.map(|(_, graph)| count(graph.jobs.len(), "job")));
        writeln!(
            output,
            " <span class=\"quiet\"><bdi>{}</bdi></span></summary>",
            text(quiet.join(" · "))
        )?;
        match graph {
            Some((index, graph)) => {
                let layout = layouts.get(index).and_then(Option::as_ref);
                drawing::write_use(&workflow.workflow, index, graph, layout, output)?;
            }
            None => output.write_all(
                b"<p class=\"quiet\">The jobs cannot be told: the DAG file is lost, or laid out in another way.</p>\n",
            )?,
        }
        facts_of_workflow(generation, workflow, output)?;
        output.write_all(b"</details>\n")?;
    }
    output.write_all(b"</section>\n")
}

fn facts_of_workflow(
    generation: &Generation,
    workflow: &Workflow,
    output: &mut dyn Write,
) -> io::Result<()> {
    output.write_all(b"<dl class=\"facts\">\n")?;
    let mut fact = |name: &str, value: &str| {
        writeln!(
            output,
            "<div><dt>{name}</dt><dd><bdi>{}</bdi></dd></div>",
            text(value)
        )
    };
    if let Some(dag_id) = &workflow.dag_id {
        fact("DAG id", dag_id)?;
    }
    fact(
        "File",
        &format!("{}, {}", workflow.key, bytes(workflow.size)),
    )?;
    if let Some(start) = workflow.start {
        fact("Start time", &start.strftime("%Y-%m-%d %H:%M").to_string())?;
    }
    if let Some(ends) = workflow.ends {
        fact(
            "Ends",
            &format!("{} {}", words::date(ends), words::clock(ends)),
        )?;
    }
    if workflow.image != generation.image {
        let image = workflow.image.to_string();
        fact("Image", &format!("sha256:{}", short(&image)))?;
    }
    output.write_all(b"</dl>\n")
}
