//! Parses the command line, calls the library, prints the result. One file a command.

mod adoption;
mod arguments;
mod ask;
mod built_before;
mod cache;
mod caching;
mod context;
mod deployment;
mod describe;
mod failure;
mod login;
mod opened;
mod outcome;
mod part;
mod place;
mod plan_file;
mod project_python;
mod project_tests;
mod services;
mod settings_file;
mod unknown;

mod build;
mod build_package;
mod build_requirements;
mod check;
mod completions;
mod config;
mod deploy;
mod diff;
mod doctor;
mod gc;
mod gc_environment;
mod history;
mod image;
mod init;
mod interrupt;
mod logs;
mod man;
mod migrate;
mod plan;
mod project_version;
mod release;
mod report;
mod resume;
mod rollback;
mod run;
mod saved_image;
mod start_project;
mod status;
mod store;
mod unlock;
mod why_rebuilt;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::environment::Direction;
use crate::ui::{CommandError, Exit, LogFormat, Printer, Verbosity, fit_to_errors};
use arguments::GlobalArguments;
use context::Context;
use unknown::Parsed;

/// Deploys BigFlow projects: incremental uploads, a record of what is live, one-command rollback.
#[derive(Debug, Parser)]
#[command(
    name = "forebay",
    version = env!("FOREBAY_VERSION"),
    max_term_width = 100,
    arg_required_else_help = true,
    infer_long_args = true,
    disable_help_subcommand = true,
    after_help = "Start with `forebay plan -c ENVIRONMENT` in the folder of a BigFlow project."
)]
struct Arguments {
    #[command(flatten)]
    global: GlobalArguments,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the DAG files and the image
    Build(build::All),
    /// Build the DAG files into .dags/
    BuildDags(build::WithDags),
    /// Build the image
    BuildImage(build::ImageAlone),
    /// Run the project's tests, then build its wheel into dist/, the same bytes from the same sources
    BuildPackage(build_package::Arguments),
    /// Build what is not built, then make it live: image, DAG files, record
    Deploy(deploy::Everything),
    /// Deploy the DAG files alone; they run the image that was built from the same sources
    DeployDags(deploy::WithDags),
    /// Deploy the image alone; the live DAG files stay as they are
    DeployImage(deploy::ImageAlone),
    /// Show what `deploy` would do, and do nothing
    Plan(plan::Arguments),
    /// Show what is live, and whether somebody touched it
    Status(status::Arguments),
    /// Show what was live before
    History(history::Arguments),
    /// Show what is different between two generations
    Diff(diff::Arguments),
    /// Draw an environment as one HTML page: its generations, images, workflows, and what changed
    Report(report::Arguments),
    /// Make an earlier generation live again; nothing is rebuilt
    Rollback(rollback::Arguments),
    /// Finish what an interrupted deploy has begun; `deploy` does it by itself
    Resume(resume::Arguments),
    /// Take back what an interrupted deploy has begun
    Abort(resume::Arguments),
    /// End the hold of a deploy that was killed
    Unlock(unlock::Arguments),
    /// Work on the image
    #[command(subcommand)]
    Image(image::Command),
    /// Name what has changed since the last build, and for what it counts
    WhyRebuilt(why_rebuilt::Arguments),
    /// Share what is built with other machines, through a bucket
    #[command(subcommand)]
    Cache(cache::Command),
    /// Delete what nobody needs from this machine's store, or from an environment
    Gc(gc::Arguments),
    /// Look into this machine's store
    #[command(subcommand)]
    Store(store::Command),
    /// Run a workflow, or one of its jobs, on this machine
    Run(run::Arguments),
    /// Print links to the logs of the workflows
    Logs(logs::Arguments),
    /// Compile requirements.in to requirements.txt, all versions pinned
    BuildRequirements(build_requirements::Arguments),
    /// Look at a BigFlow project as Forebay sees it, and write down what is chosen
    Init(init::Arguments),
    /// Begin a BigFlow project
    StartProject(start_project::Arguments),
    /// Print the project's version, as git and BigFlow's scheme give it
    #[command(visible_alias = "pv")]
    ProjectVersion(project_version::Arguments),
    /// Tag the next minor version and push the tag to origin
    Release(release::Arguments),
    /// Print the resolved properties of an environment
    Config(config::Arguments),
    /// Look at everything that a deploy relies on: Python, logins, rights, names, unfinished deploys
    Doctor(doctor::Arguments),
    /// Print a script that completes commands and flags in your shell
    Completions(completions::Arguments),
    /// Write the manual pages, one a command, into a folder
    Man(man::Arguments),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let given = arguments::spell_out(std::env::args_os());
    let parsed = match unknown::parse::<Arguments>(given) {
        Ok(parsed) => parsed,
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return Exit::Done.into();
        }
        Err(error) => {
            show_usage(&error);
            // A program that asked for JSON gets it, whatever else is wrong with its call.
            if std::env::args_os().any(|argument| argument == "--json") {
                let what = error.kind().to_string();
                let failure = CommandError::new(Exit::Usage, what).next("see `forebay --help`");
                Printer::new(true, Verbosity::Quiet, LogFormat::Text).failure_as_json(&failure);
            }
            return Exit::Usage.into();
        }
    };
    let Parsed {
        arguments,
        ignored,
        environment,
    } = parsed;
    let printer = arguments.global.printer();
    for argument in ignored {
        printer.warning(&format!(
            "ignored {argument}: nobody knows it here, nor in BigFlow"
        ));
    }
    match run(arguments, printer) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let error = match environment {
                Some(environment) => error.in_environment(&environment),
                None => error,
            };
            printer.failure(&error);
            error.exit().into()
        }
    }
}

/// What is wrong with the command line, as clap says it.
fn show_usage(error: &clap::Error) {
    use std::io::Write as _;
    let text = error.render().ansi().to_string();
    let _ = write!(anstream::stderr(), "{}", fit_to_errors(&text));
}

fn run(arguments: Arguments, printer: Printer) -> Result<Exit, CommandError> {
    let context = Context::new(arguments.global, printer)?;
    match arguments.command {
        Command::Build(arguments) => build::everything(&context, &arguments),
        Command::BuildDags(arguments) => build::dags(&context, &arguments),
        Command::BuildImage(arguments) => build::image(&context, &arguments),
        Command::BuildPackage(arguments) => build_package::run(&context, &arguments),
        Command::Deploy(arguments) => deploy::everything(&context, &arguments),
        Command::DeployDags(arguments) => deploy::dags(&context, &arguments),
        Command::DeployImage(arguments) => deploy::image(&context, &arguments),
        Command::Plan(arguments) => plan::run(&context, &arguments),
        Command::Status(arguments) => status::run(&context, &arguments),
        Command::History(arguments) => history::run(&context, &arguments),
        Command::Diff(arguments) => diff::run(&context, &arguments),
        Command::Report(arguments) => report::run(&context, &arguments),
        Command::Unlock(arguments) => unlock::run(&context, &arguments),
        Command::Rollback(arguments) => rollback::run(&context, &arguments),
        Command::Resume(arguments) => resume::run(&context, &arguments, Direction::Forward),
        Command::Abort(arguments) => resume::run(&context, &arguments, Direction::Back),
        Command::Image(command) => image::run(&context, &command),
        Command::WhyRebuilt(arguments) => why_rebuilt::run(&context, &arguments),
        Command::Cache(command) => cache::run(&context, &command),
        Command::Gc(arguments) => gc::run(&context, &arguments),
        Command::Store(command) => store::run(&context, &command),
        Command::Run(arguments) => run::run(&context, &arguments),
        Command::Logs(arguments) => logs::run(&context, &arguments),
        Command::BuildRequirements(arguments) => build_requirements::run(&context, &arguments),
        Command::Init(arguments) => init::run(&context, &arguments),
        Command::StartProject(arguments) => start_project::run(&context, &arguments),
        Command::ProjectVersion(arguments) => project_version::run(&context, &arguments),
        Command::Release(arguments) => release::run(&context, &arguments),
        Command::Config(arguments) => config::run(&context, &arguments),
        Command::Doctor(arguments) => doctor::run(&context, &arguments),
        Command::Completions(arguments) => completions::run(&context, &arguments),
        Command::Man(arguments) => man::run(&context, &arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Every command that does something, with all the names before its own.
    fn each(command: &clap::Command, path: &str, look: &mut dyn FnMut(&str, &clap::Command)) {
        let mut inner = command.get_subcommands().peekable();
        if inner.peek().is_none() {
            return look(path, command);
        }
        for command in inner {
            each(command, &format!("{path} {}", command.get_name()), look);
        }
    }

    #[test]
    fn every_help_has_an_example_that_is_understood_and_says_what_is_written() {
        let root = Arguments::command();
        root.clone().debug_assert();
        each(&root, "forebay", &mut |path, command| {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let says = help.starts_with("Writes")
                || help.starts_with("Deletes")
                || help.starts_with("Moves");
            assert!(says, "{path} does not say what it writes: {help:?}");
            let (_, examples) = help.split_once("\n\nExamples:\n").unwrap_or_default();
            assert!(examples.contains(path), "{path} has no example: {help:?}");
            for example in examples.lines() {
                let Some(start) = example.find("forebay ") else {
                    panic!("{path}: {example}");
                };
                // A remark stands behind blanks; what a shell would do, behind its signs.
                let line = example[start..].split("  ").next().unwrap_or_default();
                let line = line.split(['>', '&', ')', '|']).next().unwrap_or_default();
                let given = line.split_whitespace().map(std::ffi::OsString::from);
                let parsed = Arguments::try_parse_from(arguments::spell_out(given));
                assert!(
                    parsed.is_ok(),
                    "{line}: {}",
                    parsed.map(|_| ()).unwrap_err()
                );
            }
        });
    }
}
