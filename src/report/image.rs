//! An image of a generation: where it is, its layers and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::data::base;
use super::html::text;
use super::model::{Generation, Image, ImageState, KindOfLayer, Layer, Report, Since};
use super::words::{share, short};
use crate::environment::Changed;
use crate::oci::Sha256Digest;
use crate::ui::{bytes, count};

/// Writes what a generation runs: an image with its layers. `before` is the image that was live before.
pub(super) fn write(
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
            b"<p class=\"quiet\">Its layers are not known: the registry could not be asked, or has an image for several platforms.</p>\n",
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
