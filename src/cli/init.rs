//! `forebay init`

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::arguments::DagFormatArgument;
use super::ask::{can_ask, confirm, show};
use super::context::Context;
use super::settings_file;
use crate::artifacts::{TargetOptions, Workspace};
use crate::project::TestFramework;
use crate::ui::{Colour, CommandError, Exit, Table};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes [tool.forebay.dags] at the end of pyproject.toml if something was chosen, and nothing else; without a choice BigFlow's ways hold, and nothing is written. At a terminal it asks.\n\nExamples:\n  forebay init\n  forebay init --ids stable\n  forebay init --dag-format bigflow-1.11"
)]
pub(super) struct Arguments {
    /// What DAGs are called: another name with every version, as BigFlow does, or always like their workflow, so that Airflow keeps the history
    #[arg(long, value_enum, value_name = "KIND")]
    ids: Option<IdsArgument>,

    /// How DAG files are written
    #[arg(long, value_enum, value_name = "FORMAT")]
    dag_format: Option<DagFormatArgument>,
}

/// What DAGs are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum IdsArgument {
    /// WORKFLOW__vVERSION__START
    Versioned,
    /// WORKFLOW
    Stable,
}

/// What `--json` prints (`schema/init.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    project: String,
    directory: PathBuf,
    packages: Vec<String>,
    /// `unittest` or `pytest`.
    tests: &'static str,
    environments: Vec<EnvironmentDocument>,
    /// What was written into pyproject.toml; null if nothing was.
    written: Option<String>,
}

#[derive(Debug, Serialize)]
struct EnvironmentDocument {
    name: String,
    /// Null if it is missing or cannot be used.
    repository: Option<String>,
    bucket: Option<String>,
    /// What is wrong with them.
    problems: Vec<String>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let project = workspace.project();
    let section = section(context, &workspace, arguments)?;
    if let Some(section) = &section {
        settings_file::append(&project.directory, section)?;
    }
    let names = workspace.environments()?;
    let environments: Vec<_> = names
        .into_iter()
        .map(|name| environment(&workspace, name))
        .collect();
    let document = Document {
        project: project.spec.name.to_string(),
        directory: project.directory.clone(),
        packages: project.spec.root_packages().map(str::to_owned).collect(),
        tests: match project.spec.test_framework {
            TestFramework::Unittest => "unittest",
            TestFramework::Pytest => "pytest",
        },
        environments,
        written: section,
    };
    let width = context.printer.width();
    context
        .printer
        .result(&document, || text(&document, width))?;
    Ok(Exit::Done)
}

/// What is to be written: what flags or a person have chosen.
fn section(
    context: &Context,
    workspace: &Workspace,
    arguments: &Arguments,
) -> Result<Option<String>, CommandError> {
    let is_there = has_section(workspace);
    let mut lines = Vec::new();
    if let Some(format) = arguments.dag_format {
        let format = format.to_possible_value();
        lines.extend(format.map(|format| format!("format = \"{}\"", format.get_name())));
    }
    let bigflows = arguments.dag_format == Some(DagFormatArgument::Bigflow1_11);
    let ids = match arguments.ids {
        None if !is_there && !bigflows && can_ask(context.printer) => asked(),
        given => given,
    };
    match ids {
        Some(IdsArgument::Versioned) => lines.push("ids = \"versioned\"".to_owned()),
        Some(IdsArgument::Stable) if bigflows => {
            return Err(
                CommandError::new(Exit::Usage, "BigFlow's format has no stable ids")
                    .next("leave --dag-format away, or --ids stable"),
            );
        }
        Some(IdsArgument::Stable) => lines.push("ids = \"stable\"".to_owned()),
        None => {}
    }
    if lines.is_empty() {
        return Ok(None);
    }
    if is_there {
        return Err(CommandError::new(
            Exit::Usage,
            "pyproject.toml has a section [tool.forebay.dags] already",
        )
        .next(format!("write there: {}", lines.join(", "))));
    }
    Ok(Some(format!("[tool.forebay.dags]\n{}\n", lines.join("\n"))))
}

fn asked() -> Option<IdsArgument> {
    show(&[
        "BigFlow gives a DAG another name with every version, and its history in Airflow begins anew."
            .to_owned(),
    ]);
    let question =
        "Call DAGs always like their workflow instead, so that Airflow keeps the history?";
    confirm(question, false).then_some(IdsArgument::Stable)
}

fn has_section(workspace: &Workspace) -> bool {
    let path = workspace.project().directory.join(settings_file::NAME);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let table: toml::Table = text.parse().unwrap_or_default();
    let forebay = table.get("tool").and_then(|tool| tool.get("forebay"));
    forebay.is_some_and(|forebay| forebay.get("dags").is_some())
}

fn environment(workspace: &Workspace, name: String) -> EnvironmentDocument {
    let mut problems = Vec::new();
    let options = TargetOptions {
        environment: Some(name.clone()),
        ..TargetOptions::default()
    };
    let target = workspace.target(options);
    let mut repository = None;
    let mut bucket = None;
    match &target {
        Err(error) => problems.push(error.to_string()),
        Ok(target) => {
            match target.repository() {
                Ok(found) => repository = Some(found.to_string()),
                Err(error) => problems.push(error.to_string()),
            }
            match target.bucket() {
                Ok(found) => bucket = Some(found.to_string()),
                Err(error) => problems.push(error.to_string()),
            }
        }
    }
    EnvironmentDocument {
        name,
        repository,
        bucket,
        problems,
    }
}

fn text(document: &Document, width: Option<usize>) -> String {
    let mut text = format!(
        "project {} (packages {}), tests with {}\n",
        document.project,
        document.packages.join(", "),
        document.tests
    );
    let mut table = Table::new(["ENVIRONMENT", "IMAGES", "DAG FILES"]);
    for environment in &document.environments {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            environment.name.clone(),
            shown(&environment.repository),
            shown(&environment.bucket),
        ]);
    }
    match document.environments.first() {
        Some(_) => text.push_str(&table.render(width)),
        None => text.push_str("there is no deployment_config.py: --docker-repository and --dags-bucket stand for it\n"),
    }
    for environment in &document.environments {
        for problem in &environment.problems {
            let _ = writeln!(
                text,
                "{}: {}: {problem}",
                Colour::Warning.paint("warning"),
                environment.name
            );
        }
    }
    match &document.written {
        Some(section) => {
            let _ = write!(text, "added to {}:\n{section}", settings_file::NAME);
        }
        None => text.push_str("nothing was written: BigFlow's ways hold\n"),
    }
    if let Some(environment) = document.environments.first() {
        let plan = format!("forebay plan -c {}", environment.name);
        let _ = writeln!(text, "{}: {plan}", Colour::Next.paint("next"));
    }
    text
}
