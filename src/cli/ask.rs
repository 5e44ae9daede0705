//! Questions, which only a person at a terminal is asked.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::ui::{Printer, error_width, wrap_after};

/// Whether somebody is there to answer.
pub(super) fn can_ask(printer: Printer) -> bool {
    !printer.is_json() && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks; an empty line is the default, and the end of the input a no.
pub(super) fn confirm(question: &str, default: bool) -> bool {
    let choice = if default { "[Y/n]" } else { "[y/N]" };
    let question = wrap_after(&format!("{question} {choice}"), error_width(), 0);
    let mut stdin = std::io::stdin().lock();
    loop {
        let mut stderr = anstream::stderr();
        let _ = write!(stderr, "{question} ");
        let _ = stderr.flush();
        let mut line = String::new();
        match stdin.read_line(&mut line) {
            Ok(0) | Err(_) => {
                // Nobody has ended the question's line.
                let _ = writeln!(stderr);
                return false;
            }
            Ok(_) => {}
        }
        match line.trim().to_ascii_lowercase().as_str() {
            "" => return default,
            "y" | "yes" => return true,
            "n" | "no" => return false,
            _ => {}
        }
    }
}

/// Lines above a question.
pub(super) fn show(lines: &[String]) {
    let mut stderr = anstream::stderr();
    for line in lines {
        let line = wrap_after(line, error_width(), 0);
        let _ = writeln!(stderr, "{line}");
    }
}
