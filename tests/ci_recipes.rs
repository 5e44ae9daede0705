//! The recipes of `docs/ci.md` are command lines that this program understands.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

/// Every command line of the page: in blocks of code, and in the text.
fn command_lines(page: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in page.lines() {
        let mut rest = line;
        while let Some(start) = rest.find("forebay ") {
            let before = rest[..start].chars().next_back();
            rest = &rest[start..];
            let end = rest.find(['\'', '`', '"']).unwrap_or(rest.len());
            let is_command =
                matches!(before, None | Some(' ' | '`' | '\'')) && !rest.starts_with("forebay -");
            // In a sentence only what is marked as code is one.
            let is_code = before != Some(' ') || line.trim_start().starts_with("- ");
            if is_command && is_code {
                found.push(
                    rest[..end]
                        .split_whitespace()
                        .skip(1)
                        .map(str::to_owned)
                        .collect(),
                );
            }
            rest = &rest[end..];
        }
    }
    found
}

#[test]
fn every_command_of_the_page_is_understood() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci.md");
    let commands = command_lines(&std::fs::read_to_string(page).unwrap());
    assert!(commands.len() >= 15, "{commands:?}");
    for arguments in commands {
        // Flags and values are read before the help is shown: an unknown one is an error.
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(&arguments)
            .arg("--help")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
