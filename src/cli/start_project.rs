//! `forebay start-project`

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde::Serialize;

use super::context::Context;
use crate::develop::{
    DevelopError, NewProject, ProjectPython, compile_requirements, start_project,
};
use crate::ui::{CommandError, Exit};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes the folder NAME_project, with what BigFlow's own start-project puts there. What is not given is asked for.\n\nExamples:\n  forebay start-project\n  forebay start-project --name shop -p my-project -b my-bucket"
)]
pub(super) struct Arguments {
    /// The project's name, which becomes its Python package
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The Google Cloud project that it runs in [default: gcloud's]
    #[arg(short = 'p', long, value_name = "PROJECT")]
    gcp_project_id: Option<String>,

    /// The bucket of its Composer
    #[arg(short = 'b', long, value_name = "BUCKET")]
    dags_bucket: Option<String>,
}

/// What `--json` prints (`schema/start-project.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    directory: PathBuf,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let given =
        |value: &Option<String>, question: &str, default: Option<String>, flag: &str| match value {
            Some(value) => Ok(value.clone()),
            None => ask(question, default, flag),
        };
    let project = NewProject {
        name: given(
            &arguments.name,
            "The project's name, a Python package's",
            None,
            "--name",
        )?,
        gcp_project: given(
            &arguments.gcp_project_id,
            "The Google Cloud project that it runs in",
            gcloud_project(),
            "--gcp-project-id",
        )?,
        dags_bucket: given(
            &arguments.dags_bucket,
            "The bucket of its Composer",
            None,
            "--dags-bucket",
        )?,
    };
    let (interpreter, import_paths) = context.python_with_bigflow()?;
    let python = ProjectPython {
        interpreter,
        import_paths,
        directory: context.directory().to_owned(),
    };
    let made = start_project(&python, &project)?;
    for path in &made.mended {
        context.printer.warning(&format!(
            "left log_config out of {}: this BigFlow's Workflow does not take it",
            path.display()
        ));
    }
    let requirements = Path::new("resources/requirements.in");
    let python = ProjectPython {
        directory: made.directory.clone(),
        ..python
    };
    let compiled = compile_requirements(&python, &made.directory.join(requirements), requirements);
    compiled.map_err(|error| not_compiled(&made.directory, error))?;
    let document = Document {
        directory: made.directory,
    };
    context
        .printer
        .result(&document, || {
            let folder = document.directory.display();
            format!("{folder}\nnext: `cd {folder}`, then `forebay doctor -c dev` and `forebay deploy -c dev`\n")
        })?;
    Ok(Exit::Done)
}

fn not_compiled(directory: &Path, error: DevelopError) -> CommandError {
    let cause = CommandError::from_error(Exit::Failed, &error);
    CommandError::new(
        Exit::Failed,
        format!(
            "the project is in {}, but its requirements are not compiled",
            directory.display()
        ),
    )
    .why(cause.what())
    .next(
        "go there, and run `forebay build-requirements` with a Python that they fit; see --python",
    )
}

/// Asks on standard error and reads a line; what is piped in answers too.
fn ask(question: &str, default: Option<String>, flag: &str) -> Result<String, CommandError> {
    let shown = default.as_deref().map(|value| format!(" [{value}]"));
    let mut output = std::io::stderr().lock();
    let _ = write!(output, "{question}{}: ", shown.unwrap_or_default());
    let _ = output.flush();
    let mut line = String::new();
    // Nobody's answer ends the line of the question.
    if !matches!(std::io::stdin().lock().read_line(&mut line), Ok(1..)) {
        let _ = writeln!(output);
    }
    let answer = line.trim();
    match (answer.is_empty(), default) {
        (false, _) => Ok(answer.to_owned()),
        (true, Some(default)) => Ok(default),
        (true, None) => Err(
            CommandError::new(Exit::Usage, format!("{flag} is not given"))
                .next(format!("give {flag}, or answer when asked")),
        ),
    }
}

/// The project that gcloud works with, if gcloud is there and has one.
fn gcloud_project() -> Option<String> {
    let output = Command::new("gcloud")
        .args(["config", "get-value", "project"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
