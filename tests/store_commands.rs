//! `forebay store` and `forebay gc`, as a person or a script runs them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

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

/// A machine whose store is beside the folder that the commands run in.
fn scene() -> (tempfile::TempDir, Machine, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let project = directory.path().join("project");
    fs::create_dir(&project).unwrap();
    let machine = Machine::new()
        .with_python("/usr/bin/python3")
        .with_variable("FOREBAY_STORE", store.to_str().unwrap());
    (directory, machine, project)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn every_command_prints_what_its_schema_says() {
    let Some(python) = installed("FOREBAY_TEST_BIGFLOW_PYTHON") else {
        return;
    };
    let (directory, machine, project) = scene();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = |schema: &str, arguments: &[&str]| {
        let document = machine.forebay_json(&project, arguments);
        let schema = root.join(format!("schema/{schema}.schema.json"));
        let schema = schema.to_str().unwrap();
        machine.run(
            &project,
            &python,
            ["-c", VALIDATE, schema, &document.to_string()],
        );
        document
    };
    fs::write(project.join("large"), vec![7; 100_000]).unwrap();
    fs::write(project.join("small"), "small").unwrap();

    assert_eq!(run("store-scan", &["store", "scan", "."])["read_again"], 2);
    let again = run("store-scan", &["store", "scan", "."]);
    assert_eq!(
        (&again["read_again"], &again["bytes"]),
        (&0.into(), &100_005.into())
    );

    let large = run(
        "store-put",
        &["store", "put", "large", "--root", "pin/large"],
    );
    let small = run("store-put", &["store", "put", "small"]);
    let cat = run("store-cat", &["store", "cat", text(&small["sha256"])]);
    assert_eq!(cat["base64"], "c21hbGw=");
    let finished = machine.forebay(&project, ["store", "cat", text(&small["digest"])]);
    assert_eq!((finished.status, finished.stdout.as_str()), (0, "small"));
    let listed = run("store-ls", &["store", "ls"]);
    assert_eq!(listed["objects"].as_array().unwrap().len(), 2);
    assert_eq!(run("store-stats", &["store", "stats"])["files"], 1);
    let why = run("store-why", &["store", "why", text(&large["digest"])]);
    assert_eq!(why["roots"][0], "pin/large");
    let exported = run(
        "store-archive",
        &["store", "export", "pin/large", "-o", "../large.forebay"],
    );
    assert_eq!(exported["objects"][0], large["digest"]);

    let dry = run("gc", &["gc", "--dry-run", "--grace", "0"]);
    let real = run("gc", &["gc", "--grace", "0"]);
    assert_eq!(dry["deleted"], real["deleted"]);
    assert_eq!(real["deleted"][0]["digest"], small["digest"]);
    assert_eq!(dry["freed"], real["freed"]);
    let rebuilt = run("store-rebuild-index", &["store", "rebuild-index"]);
    assert_eq!(rebuilt["objects"], 1);
    assert_eq!(run("store-verify", &["store", "verify"])["objects"], 1);

    let other = directory.path().join("other");
    let machine = Machine::new().with_variable("FOREBAY_STORE", other.to_str().unwrap());
    let imported = machine.forebay_json(&project, ["store", "import", "../large.forebay"]);
    assert_eq!(imported["objects"], exported["objects"]);
    let finished = machine.forebay(&project, ["store", "cat", text(&large["digest"])]);
    assert_eq!(finished.stdout.len(), 100_000);
}

#[test]
fn verify_tells_in_its_exit_status_what_it_found() {
    let (directory, machine, project) = scene();
    let mut digests = Vec::new();
    for number in 0..3u8 {
        fs::write(project.join("file"), vec![number; 100_000]).unwrap();
        let put = machine.forebay_json(&project, ["store", "put", "file"]);
        digests.push(text(&put["digest"]).to_owned());
    }
    let path = |digest: &str| {
        directory
            .path()
            .join("store/objects")
            .join(&digest[..2])
            .join(digest)
    };
    let verify = || machine.forebay(&project, ["store", "verify"]).status;
    assert_eq!(verify(), 0);
    fs::remove_file(path(&digests[0])).unwrap();
    assert_eq!(verify(), 16);
    // It is forgotten, and no longer missed.
    assert_eq!(verify(), 0);
    fs::remove_file(path(&digests[1])).unwrap();
    fs::write(path(&digests[1]), vec![9; 100_000]).unwrap();
    fs::remove_file(path(&digests[2])).unwrap();
    fs::write(
        directory
            .path()
            .join("store/packs")
            .join(format!("{}.pack", "0".repeat(64))),
        "",
    )
    .unwrap();
    assert_eq!(verify(), 16 + 32 + 64);
}

#[test]
fn errors_say_what_why_and_what_next() {
    let (_directory, machine, project) = scene();
    let unknown = "0".repeat(64);
    fs::write(project.join("small"), "small").unwrap();
    let known = machine.forebay_json(&project, ["store", "put", "small"]);
    let known = text(&known["digest"]).to_owned();
    for (arguments, status, says) in [
        (vec!["store", "cat", "xyz"], 2, "not a BLAKE3 digest"),
        (vec!["store", "cat", &unknown], 2, "is not in the store"),
        (vec!["store", "why", &unknown], 2, "forebay store ls"),
        (vec!["store", "put", "absent"], 2, "cannot read absent"),
        (
            vec!["store", "export", "no/such", "-o", "x"],
            2,
            "there is no root no/such",
        ),
        (vec!["store", "scan", "absent"], 2, "name a folder"),
        (vec!["store", "import", "absent"], 2, "name a file"),
        (
            vec!["store", "export", &known, "-o", "no/such/file"],
            2,
            "can be written",
        ),
        (vec!["gc", "--max-size", "many"], 2, "500MB"),
        (vec!["gc", "--grace", "soon"], 2, "24h"),
    ] {
        let finished = machine.forebay(&project, &arguments);
        assert_eq!(
            finished.status, status,
            "{arguments:?}: {}",
            finished.stderr
        );
        assert!(
            finished.stderr.contains(says),
            "{arguments:?}: {}",
            finished.stderr
        );
    }
}

#[test]
fn a_collection_after_a_deploy_takes_nothing_that_the_next_deploy_needs() {
    let (_directory, machine, project) = scene();
    copy_folder(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello"),
        &project,
    );
    let deploy = || machine.forebay_json(&project, ["deploy", "-c", "local"]);
    let objects = || {
        let listed = machine.forebay_json(&project, ["store", "ls"]);
        listed["objects"].as_array().unwrap().len()
    };
    deploy();
    let greeting = project.join("hello/greeting.py");
    let source = fs::read_to_string(&greeting).unwrap();
    fs::write(&greeting, source.replace("world", "moon")).unwrap();
    assert_eq!(deploy()["changed"], true);
    assert_eq!(deploy()["changed"], false);
    let before = objects();

    let report = machine.forebay_json(&project, ["gc", "--grace", "0"]);
    assert_eq!(
        report["waiting"].as_u64().unwrap() + report["kept"].as_u64().unwrap(),
        objects() as u64
    );
    assert!(report["kept"].as_u64().unwrap() > 0);
    assert!(objects() <= before);
    let after = objects();
    let again = deploy();
    assert_eq!(again["changed"], false);
    // Nothing had to be made anew.
    assert_eq!(objects(), after);
    assert_eq!(
        machine.forebay_json(&project, ["gc", "--grace", "0"])["deleted"],
        serde_json::json!([])
    );
    let rolled_back = machine.forebay(&project, ["rollback", "-c", "local"]);
    assert_eq!(rolled_back.status, 0, "{}", rolled_back.stderr);
}
