//! `forebay report`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::arguments::EnvironmentArguments;
use super::context::Context;
use super::opened::{Opened, Permissions};
use crate::report::{Report, write_html};
use crate::ui::{CommandError, Exit, bytes, count};

/// Draw an environment as one HTML page: its generations, images, workflows, and what changed.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes one file, the page, which needs nothing else: open it in a browser. Reads the environment's records, and asks the registry for each image's list of layers.\n\nExamples:\n  forebay report -c prod -o report.html\n  forebay report -c prod --json           the same as data"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    environment: EnvironmentArguments,

    /// Write the page to FILE, - for standard output [default: report.html; with --json none]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Show no more than this many generations
    #[arg(short = 'n', long, default_value_t = 60, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let file = match &arguments.output {
        Some(file) => Some(file.clone()),
        None if context.printer.is_json() => None,
        None => Some(PathBuf::from("report.html")),
    };
    let is_stdout = file.as_deref() == Some(Path::new("-"));
    if is_stdout && context.printer.is_json() {
        return Err(CommandError::new(
            Exit::Usage,
            "--json and -o - both write to standard output",
        )
        .next("name a file with -o, or leave one of them out"));
    }
    let workspace = context.workspace()?;
    let Opened { environment, .. } =
        Opened::new(&workspace, &arguments.environment, Permissions::default())?;
    let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
    let survey = context.block_on(async { Ok(environment.survey(limit).await?) })?;
    let report = Report::of(environment.key(), survey);
    if is_stdout {
        let written = write_html(&report, &mut BufWriter::new(std::io::stdout().lock()));
        return match written {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(unwritable(Path::new("standard output"), &error))
            }
            _ => Ok(Exit::Done),
        };
    }
    let size = match &file {
        Some(file) => write(&report, file).map_err(|error| unwritable(file, &error))?,
        None => 0,
    };
    context.printer.result(&report, || {
        let file = file.as_deref().unwrap_or(Path::new(""));
        if report.generations.is_empty() {
            return format!(
                "{}: nothing was deployed yet, and {} says no more\n",
                report.environment,
                file.display()
            );
        }
        format!(
            "{}: {} in {} ({}); open it in a browser\n",
            report.environment,
            count(report.generations.len(), "generation"),
            file.display(),
            bytes(size)
        )
    })?;
    Ok(Exit::Done)
}

/// Gives the file's size.
fn write(report: &Report, file: &Path) -> std::io::Result<u64> {
    let mut output = BufWriter::new(File::create(file)?);
    write_html(report, &mut output)?;
    output.flush()?;
    Ok(output.get_ref().metadata()?.len())
}

fn unwritable(file: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new(Exit::Failed, format!("cannot write {}", file.display()))
        .why(error.to_string())
        .next("name another file with -o")
}
