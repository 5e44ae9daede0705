//! One generation: who and when, what has changed, its images, its workflows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::data::base;
use super::drawing;
use super::html::text;
use super::layout::Layout;
use super::model::{
    Change, Generation, Image, ImageState, KindOfLayer, Layer, Report, Since, Workflow,
};
use super::words::{self, share, short};
use crate::environment::Changed;
use crate::oci::Sha256Digest;
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
        if let Some(image) = report.images.get(digest) {
            write_image(report, generation, *digest, image, before, output)?;
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

fn write_image(
    report: &Report,
    generation: &Generation,
    digest: Sha256Digest,
    image: &Image,
    before: Option<&Image>,
    output: &mut dyn Write,
) -> io::Result<()> {
    let is_main = digest == generation.image;
    writeln!(
        output,
        "<section class=\"image\"><h3>{}</h3>",
        match is_main {
            true => "Image",
            false => "Image of workflows that were left as they were",
        }
    )?;
    let full = digest.to_string();
    writeln!(
        output,
        "<p class=\"name\"><bdi>{}</bdi><wbr>@<wbr><code title=\"{full}\">sha256:{}</code> <span class=\"quiet\">kept by the tag <bdi>{}</bdi></span></p>",
        text(&image.repository),
        short(&full),
        text(&image.retention_tag)
    )?;
    if !is_main {
        let runs = generation
            .workflows
            .iter()
            .filter(|workflow| workflow.image == digest);
        let runs: Vec<_> = runs.map(|workflow| workflow.workflow.as_str()).collect();
        writeln!(
            output,
            "<p class=\"quiet\">Runs <bdi>{}</bdi>.</p>",
            text(runs.join(", "))
        )?;
    }
    let since = generation.since.as_ref().filter(|_| is_main);
    match image.state {
        ImageState::Gone => output.write_all(
            b"<p class=\"warning\">The registry no longer has it: this generation cannot be rolled back to from everywhere.</p>\n",
        )?,
        ImageState::Unknown => output.write_all(
            b"<p class=\"quiet\">Its layers are not known: the registry was not asked, or could not be.</p>\n",
        )?,
        ImageState::Present => layers(image, since, before, output)?,
    }
    let contents = image
        .contents
        .and_then(|digest| report.contents.get(&digest));
    if let Some(contents) = contents {
        writeln!(
            output,
            "<p class=\"quiet\">On <bdi>{}</bdi>; {} and {} recorded.</p>",
            text(base(contents.base.as_ref())),
            count(contents.packages.len(), "package"),
            count(contents.files.len(), "project file"),
        )?;
    }
    output.write_all(b"</section>\n")
}

fn layers(
    image: &Image,
    since: Option<&Since>,
    before: Option<&Image>,
    output: &mut dyn Write,
) -> io::Result<()> {
    let size = image.size();
    write!(
        output,
        "<p>{}, {}.",
        count(image.layers.len(), "layer"),
        bytes(size)
    )?;
    if let Some((shared, since)) = since.and_then(|since| Some((since.layers?, since))) {
        write!(
            output,
            " {} of them, {} of the bytes, {} in generation {}’s image already.",
            shared.layers,
            share(shared.bytes, size),
            if shared.layers == 1 { "was" } else { "were" },
            since.generation
        )?;
    }
    output.write_all(b"</p>\n")?;
    let known: Option<BTreeSet<_>> = before
        .filter(|before| before.state == ImageState::Present)
        .map(|before| before.layers.iter().map(|layer| layer.digest).collect());
    let is_new = |layer: &Layer| known.as_ref().map(|known| !known.contains(&layer.digest));
    bar(image, size, &is_new, output)?;
    let updated: BTreeMap<&str, &Changed<String>> = since
        .and_then(|since| since.packages.as_ref())
        .into_iter()
        .flatten()
        .map(|package| (package.name.as_str(), package))
        .collect();
    output.write_all(b"<ol class=\"layers\">\n")?;
    for layer in &image.layers {
        write!(
            output,
            "<li class=\"{}\"><span class=\"kind\">{}</span> <span class=\"size\">{}</span> ",
            class(layer.kind),
            kind(layer.kind),
            bytes(layer.size)
        )?;
        output.write_all(match is_new(layer) {
            Some(true) => b"<span class=\"badge new\">new</span> ".as_slice(),
            Some(false) => b"<span class=\"badge same\">as before</span> ",
            None => b"",
        })?;
        holds(layer, &updated, output)?;
        let digest = layer.digest.to_string();
        writeln!(
            output,
            " <code class=\"quiet\" title=\"{digest}\">{}</code></li>",
            short(&digest)
        )?;
    }
    output.write_all(b"</ol>\n")
}

/// All layers side by side, as wide as they are big.
fn bar(
    image: &Image,
    size: u64,
    is_new: &dyn Fn(&Layer) -> Option<bool>,
    output: &mut dyn Write,
) -> io::Result<()> {
    const WIDTH: u64 = 10_000;
    let at = |position: u64| {
        let share = u128::from(position) * u128::from(WIDTH) / u128::from(size.max(1));
        u64::try_from(share).unwrap_or(WIDTH)
    };
    write!(
        output,
        r#"<svg class="bar" viewBox="0 0 {WIDTH} 10" preserveAspectRatio="none" aria-hidden="true">"#
    )?;
    let mut position = 0_u64;
    for layer in &image.layers {
        let (start, end) = (at(position), at(position.saturating_add(layer.size)));
        position = position.saturating_add(layer.size);
        // A hair between two layers, unless they are as thin themselves.
        let width = (end - start).saturating_sub(20).max(8);
        let new = if is_new(layer) == Some(true) {
            " new"
        } else {
            ""
        };
        write!(
            output,
            r#"<rect class="{}{new}" x="{start}" width="{width}" height="10"/>"#,
            class(layer.kind)
        )?;
    }
    output.write_all(b"</svg>\n")
}

fn class(kind: KindOfLayer) -> &'static str {
    match kind {
        KindOfLayer::Base => "base",
        KindOfLayer::Packages => "packages",
        KindOfLayer::Project => "project",
        KindOfLayer::Line => "line",
    }
}

fn kind(kind: KindOfLayer) -> &'static str {
    match kind {
        KindOfLayer::Base => "base",
        KindOfLayer::Packages => "packages",
        KindOfLayer::Project => "the project",
        KindOfLayer::Line => "line",
    }
}

/// What a layer holds: its packages, else the words of what made it.
fn holds(
    layer: &Layer,
    updated: &BTreeMap<&str, &Changed<String>>,
    output: &mut dyn Write,
) -> io::Result<()> {
    const SHOWN: usize = 4;
    let package = |package: &super::Package| {
        let name = format!(
            "<bdi>{}</bdi> {}",
            text(&package.name),
            text(&package.version)
        );
        match updated.contains_key(package.name.as_str()) {
            true => format!("<mark>{name}</mark>"),
            false => name,
        }
    };
    let packages: Vec<_> = layer.packages.iter().map(package).collect();
    if packages.is_empty() {
        return write!(
            output,
            "<span class=\"holds\"><bdi>{}</bdi></span>",
            text(&layer.created_by)
        );
    }
    if packages.len() <= SHOWN + 1 {
        return write!(
            output,
            "<span class=\"holds\">{}</span>",
            packages.join(", ")
        );
    }
    let names = layer.packages.iter().take(SHOWN);
    let names: Vec<_> = names.map(|package| package.name.as_str()).collect();
    write!(
        output,
        "<details class=\"holds\"><summary>{} and {} more</summary><ul><li>{}</li></ul></details>",
        text(names.join(", ")),
        packages.len() - SHOWN,
        packages.join("</li><li>")
    )
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
