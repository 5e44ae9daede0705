//! Where output goes, decided once from the flags.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;

use serde::Serialize;

use super::log::write_event;
use super::wrap::fit;
use super::{Colour, CommandError, Exit, LogFormat, wrap_after};

/// How much is said beside the result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings and errors alone.
    Quiet,
    /// What is being done.
    #[default]
    Usual,
    /// Every request, and every process that is started.
    Verbose,
}

/// Writes results to standard output and everything else to standard error.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    json: bool,
    verbosity: Verbosity,
    log_format: LogFormat,
}

impl Printer {
    /// `json`: results as one JSON document.
    pub fn new(json: bool, verbosity: Verbosity, log_format: LogFormat) -> Self {
        Self {
            json,
            verbosity,
            log_format,
        }
    }

    /// Whether progress is wanted.
    pub fn shows_progress(&self) -> bool {
        self.verbosity != Verbosity::Quiet
    }

    /// Whether bars that redraw themselves make sense: a person looks, and nothing else is
    /// written meanwhile.
    pub(super) fn draws_bars(&self) -> bool {
        self.verbosity == Verbosity::Usual
            && self.log_format == LogFormat::Text
            && std::io::stderr().is_terminal()
    }

    /// The columns of the terminal that results go to; none if they go elsewhere.
    pub fn width(&self) -> Option<usize> {
        columns(&std::io::stdout())
    }

    /// Whether what is said beside the result is for programs: one JSON object a line.
    pub fn writes_events(&self) -> bool {
        self.log_format == LogFormat::Json
    }

    /// How events are written.
    pub(super) fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// Whether the result is to be JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a command's result: `document` if JSON was asked for, otherwise the text, whose lines
    /// are broken between words where a terminal is too narrow for them.
    ///
    /// # Errors
    /// A full disk behind a redirection. A reader that has gone away is no error.
    pub fn result<D: Serialize>(
        &self,
        document: &D,
        text: impl FnOnce() -> String,
    ) -> Result<(), CommandError> {
        self.verbatim(document, || match self.width() {
            Some(width) => fit(&text(), width),
            None => text(),
        })
    }

    /// The same for text that is to be copied as it is, whatever the terminal's width: lines of
    /// files, links.
    ///
    /// # Errors
    /// As [`Printer::result`].
    pub fn verbatim<D: Serialize>(
        &self,
        document: &D,
        text: impl FnOnce() -> String,
    ) -> Result<(), CommandError> {
        let write = || -> std::io::Result<()> {
            let mut output = anstream::stdout().lock();
            if self.json {
                serde_json::to_writer_pretty(&mut output, document)?;
                writeln!(output)?;
            } else {
                output.write_all(text().as_bytes())?;
            }
            output.flush()
        };
        printed(write())
    }

    /// Prints a command's result as it is, whatever was asked for: a file for another program.
    ///
    /// # Errors
    /// As [`Printer::result`].
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let mut output = std::io::stdout().lock();
        printed(output.write_all(bytes).and_then(|()| output.flush()))
    }

    /// Prints why the command failed. With `--json` the same goes to standard output too.
    pub fn failure(&self, error: &CommandError) {
        if self.json {
            self.failure_as_json(error);
        }
        match self.log_format {
            LogFormat::Text => {
                let text = error.render(error_width());
                let _ = anstream::stderr().write_all(text.as_bytes());
            }
            LogFormat::Json => write_event("error", error.to_json()),
        }
    }

    /// Prints the JSON document of a failure alone.
    pub fn failure_as_json(&self, error: &CommandError) {
        let _ = writeln!(std::io::stdout(), "{:#}", error.to_json());
    }

    /// Prints a remark that is not a failure.
    pub fn warning(&self, text: &str) {
        if self.log_format == LogFormat::Json {
            return write_event("warning", serde_json::json!({ "message": text }));
        }
        let text = wrap_after(text, error_width(), "warning: ".len());
        let warning = Colour::Warning.paint("warning");
        let _ = writeln!(anstream::stderr(), "{warning}: {text}");
    }
}

/// The columns of the terminal that progress, warnings, errors and questions go to; none if they
/// go elsewhere.
pub fn error_width() -> Option<usize> {
    columns(&std::io::stderr())
}

/// The text, with lines broken between words where the terminal that errors go to is too narrow.
pub fn fit_to_errors(text: &str) -> String {
    match error_width() {
        Some(width) => fit(text, width),
        None => text.to_owned(),
    }
}

/// How wide a terminal is.
fn columns(terminal: &impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// A reader that has gone away is no error.
fn printed(result: std::io::Result<()>) -> Result<(), CommandError> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CommandError::new(
            Exit::Failed,
            "the result cannot be printed",
        )
        .why(error.to_string())
        .next("the command itself is done; look with `forebay status`")),
        _ => Ok(()),
    }
}
