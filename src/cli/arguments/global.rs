//! Flags of every command.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::ui::{LogFormat, Printer, Verbosity, show_details};

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct GlobalArguments {
    /// Run as if started in DIRECTORY
    #[arg(
        short = 'C',
        long,
        global = true,
        value_name = "DIRECTORY",
        help_heading = "Everywhere"
    )]
    pub(in crate::cli) directory: Option<PathBuf>,

    /// The Python that can import the project [default: the active or the project's virtual environment, else python3]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Everywhere")]
    pub(in crate::cli) python: Option<PathBuf>,

    /// Print the result as one JSON document
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(in crate::cli) json: bool,

    /// Print no progress
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Everywhere"
    )]
    pub(in crate::cli) quiet: bool,

    /// Print every request and every process that is started [default: if $BIGFLOW_VERBOSE is set]
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    pub(in crate::cli) verbose: bool,

    /// How progress, warnings and errors are written to standard error
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        env = "FOREBAY_LOG_FORMAT",
        help_heading = "Everywhere"
    )]
    pub(in crate::cli) log_format: LogFormatArgument,
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LogFormatArgument {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl GlobalArguments {
    /// How the program talks.
    pub(in crate::cli) fn printer(&self) -> Printer {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let verbosity = match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) if is_set("BIGFLOW_VERBOSE") => Verbosity::Verbose,
            (false, false) => Verbosity::Usual,
        };
        let format = match self.log_format {
            LogFormatArgument::Text => LogFormat::Text,
            LogFormatArgument::Json => LogFormat::Json,
        };
        if verbosity == Verbosity::Verbose {
            show_details(format);
        }
        Printer::new(self.json, verbosity, format)
    }
}
