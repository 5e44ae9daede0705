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

/// The blocks marked `sh`, one after the other.
fn commands(text: &str) -> String {
    let mut commands = String::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => {
                commands.push_str(line);
                commands.push('\n');
            }
            _ => {}
        }
    }
    assert!(!inside, "a block does not end");
    commands
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
