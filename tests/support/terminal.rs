//! Runs the program where a person would: in a terminal of so many columns, or into a pipe.

use std::num::NonZeroU16;
use std::path::Path;

use super::forebay_support::{Finished, Machine};

/// Where output goes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Seen {
    /// Into a pipe.
    Pipe,
    /// On a terminal with so many columns.
    Terminal(u16),
}

impl Seen {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Pipe => "pipe".to_owned(),
            Self::Terminal(columns) => columns.to_string(),
        }
    }
}

/// Runs `forebay`; a terminal's bytes are all in `stdout`.
pub(crate) fn run(machine: &Machine, directory: &Path, seen: Seen, arguments: &[&str]) -> Finished {
    let Seen::Terminal(columns) = seen else {
        return machine.forebay(directory, arguments);
    };
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/terminal.py");
    let mut command = machine.command("/usr/bin/python3", directory);
    command.env("TERM", "xterm-256color").arg(helper);
    command.args([&columns.to_string(), env!("CARGO_BIN_EXE_forebay")]);
    if let Some(python) = machine.python() {
        command.arg("--python").arg(python);
    }
    Finished::from(command.args(arguments).output().unwrap())
}

/// What stands on a terminal of so many columns after these bytes, with colours as `{name}`.
pub(crate) fn screen(bytes: &str, columns: u16) -> String {
    const LINES: u16 = 2_000;
    let size = |number| NonZeroU16::new(number).unwrap();
    let mut terminal = vt100::Parser::new(size(LINES), size(columns), 0);
    terminal.process(bytes.as_bytes());
    let screen = terminal.screen();
    let last = screen.cursor_position().0;
    let mut text = String::new();
    let mut style = "";
    for row in 0..=last {
        let mut line = String::new();
        for column in 0..columns {
            let Some(cell) = screen.cell(row, column) else {
                break;
            };
            if cell.is_wide_continuation() {
                continue;
            }
            let now = style_of(cell);
            if now != style {
                line.push_str(if now.is_empty() { "{/}" } else { now });
                style = now;
            }
            line.push_str(if cell.has_contents() {
                cell.contents()
            } else {
                " "
            });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.trim_end_matches('\n').to_owned() + "\n"
}

fn style_of(cell: &vt100::Cell) -> &'static str {
    match (cell.fgcolor(), cell.bold(), cell.dim(), cell.underline()) {
        (vt100::Color::Idx(1), ..) => "{red}",
        (vt100::Color::Idx(2), ..) => "{green}",
        (vt100::Color::Idx(3), ..) => "{yellow}",
        (vt100::Color::Idx(6), ..) => "{cyan}",
        (vt100::Color::Default, true, ..) => "{bold}",
        (vt100::Color::Default, _, true, _) => "{dim}",
        (vt100::Color::Default, _, _, true) => "{underlined}",
        (vt100::Color::Default, ..) => "",
        _ => "{another colour}",
    }
}
