//! What the page's script compares generations by.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use serde::Serialize;

use super::html::JsonInHtml;
use super::lines::LinePool;
use super::model::Report;
use super::words::short;
use crate::environment::ImageDifference;
use crate::image::{ContentsBase, ImageContents};

#[derive(Serialize)]
struct Data<'a> {
    /// The newest first.
    generations: Vec<Generation<'a>>,
    /// Each says what is different from the one before it in this list; the first, from nothing.
    contents: Vec<Contents>,
    /// Lines of all files.
    lines: &'a [&'a str],
    /// Files: for each run of lines its start and its length.
    files: Vec<Vec<usize>>,
}

#[derive(Serialize)]
struct Generation<'a> {
    number: u64,
    image: String,
    /// An index into `contents`; null if they are not recorded.
    contents: Option<usize>,
    /// Workflows to their DAG file's key and an index into `files`, null if the file is lost.
    dags: BTreeMap<&'a str, (&'a str, Option<usize>)>,
}

/// Null is what is no longer there.
#[derive(Serialize)]
struct Contents {
    base: String,
    packages: BTreeMap<String, Option<String>>,
    files: BTreeMap<String, Option<String>>,
}

/// Writes it as JSON that may stand in a page.
pub(super) fn write(report: &Report, output: &mut dyn Write) -> io::Result<()> {
    let mut pool = LinePool::default();
    let mut files = Vec::new();
    let mut known_files = HashMap::new();
    let mut contents = Vec::new();
    let mut known_contents = HashMap::new();
    let mut generations = Vec::new();
    let mut last = ImageContents::default();
    // From the oldest on: what is added to a text stands in the pool after what was there.
    for generation in report.generations.iter().rev() {
        let mut dags = BTreeMap::new();
        for workflow in generation.workflows.iter().filter(|dag| dag.ends.is_none()) {
            let text = report.files.get(&workflow.file);
            let file = text.map(|text| {
                *known_files.entry(workflow.file).or_insert_with(|| {
                    files.push(pool.add(text));
                    files.len() - 1
                })
            });
            dags.insert(workflow.workflow.as_str(), (workflow.key.as_str(), file));
        }
        let image = report.images.get(&generation.image);
        let digest = image.and_then(|image| image.contents);
        let known = digest.and_then(|digest| Some((digest, report.contents.get(&digest)?)));
        let index = known.map(|(digest, known)| {
            *known_contents.entry(digest).or_insert_with(|| {
                contents.push(changed(&last, known));
                last.clone_from(known);
                contents.len() - 1
            })
        });
        generations.push(Generation {
            number: generation.generation,
            image: generation.image.to_string(),
            contents: index,
            dags,
        });
    }
    generations.reverse();
    let data = Data {
        generations,
        contents,
        lines: pool.lines(),
        files,
    };
    serde_json::to_writer(JsonInHtml(output), &data)?;
    Ok(())
}

fn changed(last: &ImageContents, contents: &ImageContents) -> Contents {
    let difference = ImageDifference::between(last, contents);
    let packages = difference.packages.into_iter();
    let files = difference.files.into_iter().map(|file| {
        // Enough to tell one version of a file from another.
        let digest = file.to.map(|digest| short(&digest.to_string()).to_owned());
        (file.name, digest)
    });
    Contents {
        base: base(contents.base.as_ref()),
        packages: packages.map(|package| (package.name, package.to)).collect(),
        files: files.collect(),
    }
}

/// A base in words.
pub(super) fn base(base: Option<&ContentsBase>) -> String {
    match base {
        None => "scratch".to_owned(),
        Some(ContentsBase { name, digest }) => match name {
            Some(name) => format!("{name}@{digest}"),
            None => digest.to_string(),
        },
    }
}
