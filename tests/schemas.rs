//! What the program prints with `--json` and writes into buckets is as `schema/`
//! says, by the judgement of an independent validator.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

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
    let validate = |schema: &str, document: &str| {
        let schema = root.join(format!("schema/{schema}.schema.json"));
        let schema = schema.to_str().unwrap();
        machine.run(directory, &python, ["-c", VALIDATE, schema, document]);
    };
    let print = |command: &[&str]| {
        let command = command.iter().chain(&["-c", "local"]);
        machine.forebay_json(directory, command).to_string()
    };

    validate("config", &print(&["config"]));
    validate("status", &print(&["status"]));
    validate("history", &print(&["history"]));
    let plan = directory.join("plan.json");
    let plan = plan.to_str().unwrap();
    validate("plan", &print(&["plan", "--out", plan]));
    validate("saved-plan", &std::fs::read_to_string(plan).unwrap());
    validate("build", &print(&["build"]));
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
}
