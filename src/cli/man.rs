//! `forebay man FOLDER`

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, ValueHint};
use clap_mangen::Man;
use serde::Serialize;

use super::context::Context;
use crate::ui::{CommandError, Exit, count};

/// Write the manual pages, one a command, into a folder.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes the pages, from the same text as --help. What is in the folder under other names stays.\n\nExamples:\n  forebay man ~/.local/share/man/man1\n  forebay man man && man -l man/forebay-deploy.1"
)]
pub(super) struct Arguments {
    /// The folder; it is made if it is not there
    #[arg(value_hint = ValueHint::DirPath)]
    folder: PathBuf,
}

/// What `--json` prints (`schema/man.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    folder: PathBuf,
    /// The names of the files in it.
    pages: Vec<String>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let folder = context.directory().join(&arguments.folder);
    let mut command = super::Arguments::command();
    command.build();
    let mut pages = Vec::new();
    std::fs::create_dir_all(&folder)
        .and_then(|()| write(&command, "forebay", &folder, &mut pages))
        .map_err(|error| {
            CommandError::new(
                Exit::Failed,
                format!("cannot write into {}", folder.display()),
            )
            .why(error.to_string())
            .next("name a folder that can be written")
        })?;
    let document = Document { folder, pages };
    context.printer.result(&document, || {
        let pages = count(document.pages.len(), "page");
        format!("{pages} in {}\n", document.folder.display())
    })?;
    Ok(Exit::Done)
}

/// A command's page, and then those of the commands in it.
fn write(
    command: &clap::Command,
    name: &str,
    folder: &Path,
    pages: &mut Vec<String>,
) -> io::Result<()> {
    // clap knows a command by its name alone; a page, by all names before it too.
    let titled = command.clone().name(name.to_owned());
    let file = format!("{name}.1");
    let mut text = Vec::new();
    Man::new(titled)
        .date(date(env!("FOREBAY_VERSION")))
        .source(format!("forebay {}", env!("CARGO_PKG_VERSION")))
        .manual("Forebay's manual")
        .render(&mut text)?;
    std::fs::write(folder.join(&file), text)?;
    pages.push(file);
    for inner in command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set())
    {
        write(
            inner,
            &format!("{name}-{}", inner.get_name()),
            folder,
            pages,
        )?;
    }
    Ok(())
}

/// The commit's date, which ends the version in a build that knows it. Never empty: without its
/// third field the page's head takes the others for it.
fn date(version: &str) -> &str {
    let last = version.trim_end_matches(')').rsplit(' ').next();
    let is_date = |text: &&str| text.parse::<jiff::civil::Date>().is_ok();
    last.filter(is_date).unwrap_or(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_dated_as_its_commit_is() {
        assert_eq!(date("0.1.0 (abc123def 2026-11-28)"), "2026-11-28");
        for version in ["0.1.0 (abc123def)", "0.1.0"] {
            assert_eq!(date(version), " ");
        }
    }

    #[test]
    fn the_head_of_a_page_has_all_fields_in_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let command = super::super::Arguments::command();
        let mut pages = Vec::new();
        write(&command, "forebay", folder.path(), &mut pages).unwrap();
        let page = std::fs::read_to_string(folder.path().join("forebay-deploy.1")).unwrap();
        let head = page.lines().find(|line| line.starts_with(".TH")).unwrap();
        let (_, fields) = head.split_once("forebay-deploy 1 ").unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let rest = format!(" \"forebay {version}\" \"Forebay's manual\"");
        let date = fields.strip_suffix(&rest).unwrap();
        assert!(
            date == "\" \"" || date.len() == "2026-11-28".len(),
            "{head}"
        );
    }
}
