//! What people see: the help of every command in terminals of 60 and 120 columns, colours where
//! there are any, completions in a real shell, manual pages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/terminal.rs"]
#[allow(dead_code)]
mod terminal;

use forebay_support::{Finished, Machine, copy_folder};
use terminal::{Seen, run};

const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay");

fn machine() -> Machine {
    Machine::new()
        .with_python("/usr/bin/python3")
        .with_variable("FOREBAY_ENGINE", "none")
}

/// All that was written, with colours as `{name}`.
fn text(finished: &Finished) -> String {
    let mut text = format!("{}{}", finished.stdout, finished.stderr).replace("\r\n", "\n");
    for (code, name) in [
        ("\u{1b}[0m", "{/}"),
        ("\u{1b}[1m", "{bold}"),
        ("\u{1b}[2m", "{dim}"),
        ("\u{1b}[4m", "{underlined}"),
        ("\u{1b}[31m", "{red}"),
        ("\u{1b}[32m", "{green}"),
        ("\u{1b}[33m", "{yellow}"),
        ("\u{1b}[36m", "{cyan}"),
    ] {
        text = text.replace(code, name);
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    text
}

/// Without the colours.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{") {
        plain.push_str(before);
        match after.split_once('}') {
            Some((name, after)) if COLOURS.contains(&name) => rest = after,
            _ => {
                plain.push('{');
                rest = after;
            }
        }
    }
    plain + rest
}

const COLOURS: [&str; 8] = [
    "/",
    "bold",
    "dim",
    "underlined",
    "red",
    "green",
    "yellow",
    "cyan",
];

#[test]
fn every_help() {
    let machine = machine();
    let all = machine.commands();
    assert!(all.len() > 45, "{all:?}");
    for seen in [Seen::Terminal(60), Seen::Terminal(120)] {
        let mut snapshot = String::new();
        let mut shown = std::collections::BTreeSet::new();
        for path in &all {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let arguments = [&path[..], &["--help"]].concat();
            let finished = run(&machine, Path::new("/"), seen, &arguments);
            assert_eq!(finished.status, 0, "{path:?}");
            let help = plain(&text(&finished));
            let _ = writeln!(snapshot, "==== forebay {}", path.join(" "));
            for line in help.lines() {
                if let Seen::Terminal(columns) = seen {
                    // clap wraps no usage, and nothing breaks a word.
                    let is_word = line.trim().split(' ').count() == 1 || line.starts_with("Usage:");
                    assert!(line.chars().count() <= columns.into() || is_word, "{line}");
                }
            }
            // What many commands share is shown once.
            for section in help.split("\n\n") {
                let is_shared = ["Login:", "Cache:", "Everywhere:"]
                    .iter()
                    .any(|heading| section.starts_with(heading));
                let is_inside = section.starts_with(' ');
                if (is_shared || is_inside) && !shown.insert(section.to_owned()) {
                    continue;
                }
                let _ = writeln!(snapshot, "{}\n", section.trim_end());
            }
        }
        insta::assert_snapshot!(format!("help_{}", seen.name()), snapshot);
    }
}

/// `examples/hello`, never deployed.
struct Project {
    machine: Machine,
    folder: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
        copy_folder(&example, folder.path());
        Self {
            machine: machine(),
            folder,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }
}

#[test]
fn init_writes_what_is_chosen_and_nothing_else() {
    let project = Project::new();
    let run = |arguments: &[&str]| project.machine.forebay(&project.path(), arguments);
    let path = project.path().join("pyproject.toml");
    let read = || std::fs::read_to_string(&path).unwrap();
    let before = read();
    let looked = run(&["init"]);
    assert_eq!(
        (looked.status, read()),
        (0, before.clone()),
        "{}",
        looked.stderr
    );
    let shown = looked
        .stdout
        .replace(project.path().to_str().unwrap(), "PROJECT");
    insta::assert_snapshot!(shown, @r"
    project hello (packages hello), tests with unittest
    ENVIRONMENT  IMAGES                                            DAG FILES
    local        oci:.local/images                                 file://PROJECT/.local/composer
    dev          europe-docker.pkg.dev/my-project/workflows/hello  gs://my-composer-bucket
    nothing was written: BigFlow's ways hold
    next: forebay plan -c local
    ");

    let refused = run(&["init", "--ids", "stable", "--dag-format", "bigflow-1.11"]);
    assert_eq!((refused.status, read()), (2, before.clone()));
    let chosen = run(&["init", "--ids", "stable"]);
    assert_eq!(chosen.status, 0, "{}", chosen.stderr);
    assert_eq!(
        read(),
        before.clone() + "\n[tool.forebay.dags]\nids = \"stable\"\n"
    );
    let again = run(&["init", "--ids", "versioned"]);
    assert_eq!(again.status, 2);
    assert!(
        again.stderr.contains("[tool.forebay.dags] already"),
        "{}",
        again.stderr
    );
}

#[test]
fn no_color_and_a_pipe_have_no_colours_and_a_narrow_terminal_wraps() {
    let machine = machine().with_variable("NO_COLOR", "1");
    let elsewhere = tempfile::tempdir().unwrap();
    let finished = run(&machine, elsewhere.path(), Seen::Terminal(120), &["status"]);
    assert_eq!(finished.status, 2);
    let all = text(&finished);
    assert_eq!(all, plain(&all));
    assert!(all.starts_with("error: no BigFlow project"), "{all}");
    // Nor has a pipe, which wraps nothing.
    let coloured = Machine::new();
    let piped = text(&run(&coloured, elsewhere.path(), Seen::Pipe, &["status"]));
    assert_eq!(piped, plain(&piped));
    assert_eq!(piped.lines().count(), 2, "{piped}");
    let narrow = run(&coloured, elsewhere.path(), Seen::Terminal(60), &["status"]);
    let narrow = text(&narrow);
    assert_ne!(narrow, plain(&narrow));
    assert!(plain(&narrow).lines().count() > 2, "{narrow}");
}

#[test]
fn bash_completes_commands_and_flags() {
    let machine = machine();
    let complete = |words: &str| {
        let script = format!(
            "source <({FOREBAY} completions bash)\n\
             COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE='{words}'; COMP_POINT=${{#COMP_LINE}}\n\
             _forebay forebay \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        );
        let given = machine.run(Path::new("/"), "bash", ["--norc", "-c", &script]);
        given.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("forebay roll"), ["rollback"]);
    assert_eq!(complete("forebay image base pu"), ["push"]);
    assert_eq!(complete("forebay rollback --from"), ["--from-now"]);
    assert_eq!(complete("forebay deploy --dag-format b"), ["bigflow-1.11"]);
    for shell in ["zsh", "fish", "powershell", "elvish"] {
        let script = machine.forebay(Path::new("/"), ["completions", shell]);
        assert_eq!(script.status, 0, "{shell}: {}", script.stderr);
        assert!(script.stdout.contains("rollback"), "{shell}");
    }
    let wrong = machine.forebay(Path::new("/"), ["completions", "bsh"]);
    assert_eq!(wrong.status, 2);
    assert!(wrong.stderr.contains("bash"), "{}", wrong.stderr);
}

#[test]
fn every_command_has_a_manual_page_that_renders_without_a_warning() {
    let machine = machine();
    let folder = tempfile::tempdir().unwrap();
    let document = machine.forebay_json(folder.path(), ["man", "pages"]);
    let pages = document["pages"].as_array().unwrap();
    let all = machine.commands();
    assert_eq!(pages.len(), all.len());
    for page in pages {
        let page = format!("pages/{}", page.as_str().unwrap());
        let mut command = machine.command("man", folder.path());
        command
            .env("MANWIDTH", "80")
            .args(["--warnings=w", "-l", &page]);
        let finished = Finished::from(command.output().unwrap());
        assert_eq!(
            (finished.status, finished.stderr.as_str()),
            (0, ""),
            "{page}"
        );
        let title = page.trim_start_matches("pages/").trim_end_matches(".1");
        assert!(
            finished.stdout.contains(title),
            "{page}: {}",
            finished.stdout
        );
        assert!(finished.stdout.contains("OPTIONS"), "{page}");
    }
}
