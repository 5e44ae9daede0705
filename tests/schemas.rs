//! What the program prints with `--json` and writes into buckets is as `schema/`
//! says, by the judgement of an independent validator.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use forebay_support::{Machine, copy_folder, installed};

const VALIDATE: &str = "
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
Draft202012Validator(schema).validate(json.loads(sys.argv[2]))
";

#[test]
fn documents_and_records_match_their_schemas() {
    let Some(python) = installed("FOREBAY_TEST_BIGFLOW_PYTHON") else {
        return;
    };
    let machine = Machine::new().with_python("/usr/bin/python3");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = tempfile::tempdir().unwrap();
    let directory = project.path();
    copy_folder(&root.join("examples/hello"), directory);
    let validated = RefCell::new(BTreeSet::new());
    let validate = |schema: &str, document: &str| {
        validated.borrow_mut().insert(schema.to_owned());
        let schema = root.join(format!("schema/{schema}.schema.json"));
        let schema = schema.to_str().unwrap();
        machine.run(directory, &python, ["-c", VALIDATE, schema, document]);
    };
    let print = |command: &[&str]| {
        let command = command.iter().chain(&["-c", "local"]);
        machine.forebay_json(directory, command).to_string()
    };

    validate("config", &print(&["config"]));
    validate("report", &print(&["report"]));
    validate("status", &print(&["status"]));
    validate("history", &print(&["history"]));
    let plan = directory.join("plan.json");
    let plan = plan.to_str().unwrap();
    validate("plan", &print(&["plan", "--out", plan]));
    validate("saved-plan", &std::fs::read_to_string(plan).unwrap());
    validate("why-rebuilt", &print(&["why-rebuilt"]));
    validate("build", &print(&["build"]));
    validate("why-rebuilt", &print(&["why-rebuilt"]));
    validate("logs", &print(&["logs", "-p", "my-project"]));
    for command in [&["init"][..], &["man", "pages"], &["gc", "--dry-run"]] {
        let document = machine.forebay_json(directory, command);
        validate(command[0], &document.to_string());
    }
    validate("image-plan", &print(&["image", "plan"]));
    validate("image-lock", &print(&["image", "lock"]));
    validate("image-base", &print(&["image", "base", "push"]));
    validate("image-migrate", &print(&["image", "migrate"]));
    validate("build-package", &print(&["build-package"]));
    validate("resume", &print(&["resume"]));
    validate("doctor", &print(&["doctor"]));
    let version = machine.forebay_json(directory, ["project-version"]);
    validate("project-version", &version.to_string());
    validate("deploy", &print(&["deploy"]));
    validate("deploy", &print(&["deploy"]));
    validate("plan", &print(&["plan"]));
    let greeting = directory.join("hello/greeting.py");
    let text = std::fs::read_to_string(&greeting).unwrap();
    std::fs::write(&greeting, text.replace("world", "moon")).unwrap();
    validate("deploy", &print(&["deploy"]));
    validate("rollback", &print(&["rollback"]));
    validate("history", &print(&["history"]));
    validate("report", &print(&["report"]));
    let page = directory.join("report.html");
    let page = page.to_str().unwrap();
    validate("report", &print(&["report", "--limit", "1", "-o", page]));
    assert!(
        std::fs::read_to_string(page)
            .unwrap()
            .contains("Generation 3")
    );
    let cache = directory.join("cache");
    let url = format!("file://{}", cache.display());
    for command in ["push", "pull", "status", "gc"] {
        let document = print(&["cache", command, "--cache", &url]);
        validate(&format!("cache-{command}"), &document);
    }
    let key = directory.join("key");
    let keygen = ["cache", "keygen", key.to_str().unwrap()];
    let document = machine.forebay_json(directory, keygen);
    validate("cache-keygen", &document.to_string());
    let entries = cache.join("forebay-cache/v1/entries/unsigned");
    let entry = std::fs::read_dir(entries).unwrap().next().unwrap();
    {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        validate("cache-entry", std::str::from_utf8(&bytes[..end]).unwrap());
        let mut body = Vec::new();
        let mut stream = flate2::read::GzDecoder::new(&bytes[end + 1..]);
        std::io::Read::read_to_end(&mut stream, &mut body).unwrap();
        let (length, rest) = body.split_at(4);
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        validate("cache-entry", std::str::from_utf8(&rest[..length]).unwrap());
    }
    let bucket = directory.join(".local/composer");
    for entry in std::fs::read_dir(bucket.join("dags")).unwrap() {
        std::fs::write(entry.unwrap().path(), "changed").unwrap();
    }
    validate("status", &print(&["status"]));
    validate("diff", &print(&["diff"]));
    validate("diff", &print(&["diff", "1", "3"]));
    validate("unlock", &print(&["unlock", "3"]));
    let dry_run = [
        "gc",
        "--environment",
        "--keep",
        "1",
        "--grace",
        "0",
        "--dry-run",
    ];
    validate("gc-environment", &print(&dry_run));
    let refused = machine.forebay(directory, ["plan", "-c", "local", "--json"]);
    assert_eq!(refused.status, 6);
    validate("plan", &refused.stdout);

    let state = bucket.join("forebay/v1/hello/local");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    validate("head", &read(&state.join("HEAD.json")));
    let mut records = 0;
    for entry in std::fs::read_dir(state.join("generations")).unwrap() {
        validate("generation", &read(&entry.unwrap().path()));
        records += 1;
    }
    assert_eq!(records, 3);

    // A tag, pushed to a repository beside it.
    let origin = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| machine.run(directory, "git", arguments);
    git(&["init", "-q", "--bare", origin.path().to_str().unwrap()]);
    git(&["init", "-q"]);
    git(&["remote", "add", "origin", origin.path().to_str().unwrap()]);
    git(&["commit", "-q", "--allow-empty", "-m", "begin"]);
    git(&["tag", "0.1.0"]);
    let document = machine.forebay_json(directory, ["release"]);
    validate("release", &document.to_string());

    every_command_is_checked(&machine, &validated.borrow());
}

/// A new command with `--json` needs a schema, and a line above.
fn every_command_is_checked(machine: &Machine, validated: &BTreeSet<String>) {
    let all = machine.commands();
    let mut names: Vec<String> = all.iter().map(|path| path.join("-")).collect();
    names.retain(|name| {
        let inside = format!("{name}-");
        let is_group = ["", "image", "image-base", "cache", "store"].contains(&name.as_str());
        assert!(
            !is_group
                || name.is_empty()
                || all.iter().any(|path| path.join("-").starts_with(&inside))
        );
        !is_group
    });
    for name in names {
        let schema = match name.as_str() {
            "build-dags" | "build-image" => "build",
            "deploy-dags" | "deploy-image" => "deploy",
            "abort" => "resume",
            "image-base-push" => "image-base",
            // A job's own output, and a script for a shell.
            "run" | "completions" => continue,
            // `tests/store_commands.rs` and `tests/bigflow_commands.rs`.
            name if name.starts_with("store-") => continue,
            "start-project" | "build-requirements" => continue,
            name => name,
        };
        assert!(
            validated.contains(schema),
            "no schema is checked for {name}"
        );
    }
}
