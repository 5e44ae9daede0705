//! Where output goes, decided once from the flags.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::{CommandError, Exit};

/// Writes results to standard output and everything else to standard error.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    json: bool,
    quiet: bool,
}

impl Printer {
    /// `json`: results as one JSON document; `quiet`: no progress.
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether progress is wanted.
    pub fn shows_progress(&self) -> bool {
        !self.quiet
    }

    /// Whether the result is to be JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a command's result: `document` if JSON was asked for, otherwise the text.
    ///
    /// # Errors
    /// A full disk behind a redirection. A reader that has gone away is no error.
    pub fn result<D: Serialize>(
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
        match write() {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CommandError::new(
                Exit::Failed,
                "the result cannot be printed",
            )
            .why(error.to_string())
            .next("the command itself is done; look with `forebay status`")),
            _ => Ok(()),
        }
    }

    /// Prints why the command failed. With `--json` the same goes to standard output too.
    pub fn failure(&self, error: &CommandError) {
        if self.json {
            self.failure_as_json(error);
        }
        let _ = anstream::stderr().write_all(error.render(true).as_bytes());
    }

    /// Prints the JSON document of a failure alone.
    pub fn failure_as_json(&self, error: &CommandError) {
        let _ = writeln!(std::io::stdout(), "{:#}", error.to_json());
    }

    /// Prints a remark that is not a failure.
    pub fn warning(&self, text: &str) {
        let yellow = anstyle::AnsiColor::Yellow.on_default().bold();
        let _ = writeln!(anstream::stderr(), "{yellow}warning{yellow:#}: {text}");
    }
}

/// Whether bars that redraw themselves make sense.
pub(super) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}
