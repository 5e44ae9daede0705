//! Every command in a document runs: the blocks marked `sh` are run from first to last, as a
//! newcomer would, in an empty home.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::os::unix::fs::symlink;
use std::path::Path;

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use forebay_support::{Finished, Machine, copy_folder};

/// What `deployment_config.py` is where a document speaks of environments that lie in a cloud.
const CONFIGURATION: &str = "\
from bigflow.configuration import DeploymentConfig

deployment_config = DeploymentConfig(
    name='dev',
    properties={
        'gcp_project_id': 'my-project',
        'docker_repository': 'oci:.local/images',
        'dags_bucket': 'file://.local/composer-{env}',
    },
).add_configuration(name='prod', properties={})
";

const SETTINGS: &str = "
[tool.forebay.environments.dev]
base = 'scratch'
[tool.forebay.environments.prod]
base = 'scratch'
";

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The blocks of a document: what they are marked with, and their lines.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(mark) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let mut content = String::new();
        loop {
            let line = lines.next().expect("a block does not end");
            if line.trim_start() == "```" {
                break;
            }
            content.push_str(line);
            content.push('\n');
        }
        blocks.push((mark.to_owned(), content));
    }
    blocks
}

/// The blocks marked `sh`, one after the other.
fn commands(text: &str) -> String {
    let blocks = blocks(text).into_iter();
    let commands = blocks.filter(|(mark, _)| mark == "sh");
    commands.map(|(_, content)| content).collect()
}

/// Runs a document's commands in `directory` and gives what they printed.
fn follow(name: &str, directory: &Path) -> Finished {
    let programs = tempfile::tempdir().unwrap();
    symlink(
        env!("CARGO_BIN_EXE_forebay"),
        programs.path().join("forebay"),
    )
    .unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let folders = std::iter::once(programs.path().to_owned());
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).unwrap();
    let machine = Machine::new().with_variable("PATH", path.to_str().unwrap());
    let script = commands(&document(name));
    assert!(script.contains("forebay "), "{name} has no command");
    let output = machine
        .command("bash", directory)
        .args(["-euxo", "pipefail", "-c", &script])
        .output()
        .unwrap();
    let finished = Finished::from(output);
    assert_eq!(
        finished.status, 0,
        "{name}:\n{}\n{}",
        finished.stdout, finished.stderr
    );
    finished
}

/// `examples/hello` with the environments that documents speak of.
fn project() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
    copy_folder(&example, directory.path());
    let path = |name| directory.path().join(name);
    std::fs::write(path("deployment_config.py"), CONFIGURATION).unwrap();
    let settings = std::fs::read_to_string(path("pyproject.toml")).unwrap();
    std::fs::write(path("pyproject.toml"), settings + SETTINGS).unwrap();
    directory
}

#[test]
fn the_tutorial_can_be_followed_in_an_empty_folder() {
    let directory = tempfile::tempdir().unwrap();
    let finished = follow("docs/tutorial.md", directory.path());
    let printed = &finished.stdout;
    for line in [
        "dev: generation 1 is live",
        "dev: generation 2 is live",
        "the water falls at 2024-01-31 00:00:00",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
}

#[test]
fn the_other_documents_can_be_followed_in_a_project() {
    for name in ["docs/guide.md", "docs/from-bigflow.md"] {
        follow(name, project().path());
    }
}

#[test]
fn no_command_of_a_document_escapes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = std::fs::read_dir(root.join("docs")).unwrap();
    let pages = pages.map(|page| format!("docs/{}", page.unwrap().file_name().display()));
    let pages = pages.filter(|page| page.ends_with(".md"));
    for page in pages.chain(["README.md".to_owned(), "CHANGELOG.md".to_owned()]) {
        let text = document(&page);
        for (mark, content) in blocks(&text) {
            match mark.as_str() {
                // Run above, or named there.
                "sh" if [
                    "docs/tutorial.md",
                    "docs/guide.md",
                    "docs/from-bigflow.md",
                    "README.md",
                ]
                .contains(&page.as_str()) => {}
                // Read by tests/ci_recipes.rs; the pages of figures repeat what takes minutes.
                _ if page == "docs/ci.md" => {}
                "sh" if page == "docs/benchmarks.md" => {}
                // Google's programs, and a release.
                "sh not-run" => {
                    let known = ["gcloud ", ".ci/", " ", "cargo publish"];
                    for line in content.lines().map(|line| match page.as_str() {
                        "docs/releasing.md" => line.trim_start(),
                        _ => line,
                    }) {
                        let is_known = known.iter().any(|known| line.starts_with(known));
                        assert!(is_known, "{page}: {line}");
                    }
                }
                // What is typed in an example is typed in the guide or the tutorial too.
                "console" => {
                    let elsewhere = commands(&document("docs/guide.md"))
                        + &commands(&document("docs/tutorial.md"));
                    for line in content.lines().filter_map(|line| line.strip_prefix("$ ")) {
                        let command = line.split('#').next().unwrap().trim();
                        assert!(elsewhere.contains(command), "{page}: {command}");
                    }
                }
                "" | "text" | "python" | "toml" | "json" => {
                    let mut lines = content.lines().map(|line| line.trim_start_matches("$ "));
                    assert!(
                        !lines.any(|line| line.starts_with("forebay ")),
                        "{page}: {content}"
                    );
                }
                mark => panic!("{page} has a block marked {mark:?}, which no test reads"),
            }
        }
        // The tests that a page names, and the pages that it links to, are there.
        for name in text.split('`').filter(|name| name.starts_with("tests/")) {
            let file = name.split([':', ' ']).next().unwrap();
            assert!(root.join(file).exists(), "{page} names {file}");
        }
        let folder = root.join(&page).parent().unwrap().to_owned();
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap();
            if !link.is_empty() && !link.contains("://") {
                assert!(folder.join(link).exists(), "{page} links to {link}");
            }
        }
    }
}

#[test]
fn the_readme_names_commands_that_are_run_elsewhere() {
    let known = [
        // The continuous integration's own work.
        "tests/run",
        // Built in release mode.
        "examples/try",
        "cargo install --path . --locked",
    ];
    let text = commands(&document("README.md"));
    let (elsewhere, here): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| known.contains(line));
    assert_eq!(elsewhere.len(), known.len());
    for line in here {
        let command = line.split('#').next().unwrap().trim();
        let guide = commands(&document("docs/guide.md"));
        assert!(guide.contains(command), "{command} is not in the guide");
    }
}
