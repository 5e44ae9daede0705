//! The commands that look at environments and change them, as people and programs
//! see them: texts, documents, exit statuses. `examples/hello` goes to an image
//! layout and a folder.
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
#[path = "support/schema.rs"]
mod schema;

use forebay_support::{Finished, Machine, copy_folder};

/// `examples/hello` with its environment `local`.
struct Scene<'a> {
    machine: &'a Machine,
    project: tempfile::TempDir,
}

/// One machine for all: its store gets the wheels once.
#[test]
fn environments_are_planned_changed_and_explained() {
    let machine = Machine::new().with_python("/usr/bin/python3");
    a_plan_shows_what_a_deploy_does_and_what_bars_it(&Scene::new(&machine));
    what_was_planned_is_deployed_or_nothing(&Scene::new(&machine));
    an_image_that_the_registry_lost_is_pushed_again(&Scene::new(&machine));
    generations_are_compared_told_and_pruned(&Scene::new(&machine));
    a_report_asks_every_repository_that_was_deployed_from(&Scene::new(&machine));
}

impl<'a> Scene<'a> {
    fn new(machine: &'a Machine) -> Self {
        let project = tempfile::tempdir().unwrap();
        copy_folder(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello"),
            project.path(),
        );
        Self { machine, project }
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        self.machine.forebay(self.project.path(), arguments)
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let document = self.machine.forebay_json(self.project.path(), arguments);
        schema::assert_follows(arguments, &document);
        document
    }

    fn replace(&self, file: &str, from: &str, to: &str) {
        let path = self.project.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }
}

/// Digests and numbers of bytes depend on the program's version.
fn without_numbers(text: &str) -> String {
    let words = text.split_inclusive([' ', '\n', ')']);
    let words = words.map(|word| match word.trim_end().strip_prefix("sha256:") {
        Some(_) => "DIGEST\n".to_owned(),
        None => word.to_owned(),
    });
    let mut text: String = words.collect();
    for unit in [" B", " kB", " MB"] {
        while let Some(end) = text.find(unit) {
            let digits = text[..end].trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
            let start = digits.len();
            text.replace_range(start..end + unit.len(), "BYTES");
        }
    }
    text
}

fn a_plan_shows_what_a_deploy_does_and_what_bars_it(scene: &Scene<'_>) {
    let first = scene.run(&["plan", "-c", "local"]);
    assert_eq!(first.status, 0, "{}", first.stderr);
    insta::assert_snapshot!(without_numbers(&first.stdout), @r"
    local: nothing was deployed yet; a deploy would
      image    DIGEST
      send     14 of 14 layers, BYTES; 0 there
      add      cleanup
      add      greeting
    in dags/ 2 files (BYTES) would be written, 0 deleted
    ");
    let with_exit_code = scene.run(&["plan", "-c", "local", "--exit-code"]);
    assert_eq!(with_exit_code.status, 3);

    let planned = scene.json(&["plan", "-c", "local"]);
    let deployed = scene.json(&["deploy", "-c", "local"]);
    assert_eq!(planned["push"]["bytes"], deployed["bytes_sent"]);
    let unchanged = scene.run(&["plan", "-c", "local", "--exit-code"]);
    assert_eq!(unchanged.status, 0);
    insta::assert_snapshot!(unchanged.stdout, @"local: generation 1 is live, and a deploy would change nothing");

    // One line: one layer, and drift in the way.
    scene.replace("hello/greeting.py", "world", "moon");
    let dags = scene.project.path().join(".local/composer/dags");
    let entries = std::fs::read_dir(&dags).unwrap();
    let mut entries = entries.map(|entry| entry.unwrap().path());
    let cleanup = entries.find(|path| path.to_string_lossy().contains("cleanup"));
    std::fs::write(cleanup.unwrap(), "changed").unwrap();
    let out = scene.project.path().join("plan.json");
    let barred = scene.run(&["plan", "-c", "local", "--out", out.to_str().unwrap()]);
    assert_eq!(barred.status, 6);
    assert!(!out.exists());
    let text = without_numbers(&barred.stdout);
    let key = text.find("dags/cleanup").unwrap();
    let key = text[key..].split(' ').next().unwrap().to_owned();
    insta::assert_snapshot!(text.replace(&key, "dags/cleanup.py"), @r"
    local: generation 1 is live; a deploy would
      image    DIGEST
      send     1 of 14 layers, BYTES; 13 there
      replace  cleanup
      replace  greeting
      restore  dags/cleanup.py was changed
    in dags/ 2 files (BYTES) would be written, 0 deleted
    but it would be refused:
    error: somebody changed 1 of this environment's files since the last deploy
      why: dags/cleanup.py was changed
      next: look with `forebay status -c local`; --restore-drift puts back what was recorded
    ");
    assert_eq!(
        barred.stderr.matches("error:").count(),
        0,
        "{}",
        barred.stderr
    );

    // Asked only whether there is something to do, it says so.
    let asked = scene.run(&["plan", "-c", "local", "--exit-code"]);
    assert_eq!((asked.status, &asked.stdout), (3, &barred.stdout));

    let document = scene.run(&["plan", "-c", "local", "--json"]);
    assert_eq!(document.status, 6);
    let document: serde_json::Value = serde_json::from_str(&document.stdout).unwrap();
    schema::assert_follows(&["plan"], &document);
    assert_eq!(document["obstacles"][0]["exit"], 6);
    assert_eq!(document["push"]["layers_sent"], 1);
}

fn what_was_planned_is_deployed_or_nothing(scene: &Scene<'_>) {
    let out = scene.project.path().join("plan.json");
    let out = out.to_str().unwrap();
    let plan = |arguments: &[&str]| {
        let arguments = [&["plan", "-c", "local", "--out", out], arguments].concat();
        let finished = scene.run(&arguments);
        assert_eq!(finished.status, 0, "{}", finished.stderr);
        let text = std::fs::read_to_string(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let refused = |expected: &str| {
        let finished = scene.run(&["deploy", "--plan", out]);
        assert_eq!(finished.status, 6, "{}", finished.stdout);
        assert!(finished.stderr.contains("the plan is stale"));
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
        let status = scene.json(&["status", "-c", "local"]);
        status["generation"].clone()
    };

    // The flags and the environment come from the file.
    plan(&["--workflow", "greeting", "--start-time", "2026-01-31"]);
    let deployed = scene.json(&["deploy", "--plan", out]);
    assert_eq!(deployed["generation"], 1);
    let status = scene.json(&["status", "-c", "local"]);
    let keys: Vec<_> = status["dags"].as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 1);
    assert!(keys[0].contains("greeting") && keys[0].contains("2026_01_31"));
    let both = scene.run(&["deploy", "--plan", out, "--restore-drift"]);
    assert_eq!(both.status, 2);
    // Once is enough.
    assert_eq!(
        refused("what is live: planned for nothing, now generation 1"),
        1
    );

    // The files that it names are those that are deployed, whatever the clock says.
    let saved = plan(&[]);
    let planned = saved["target"]["dags"].as_object().unwrap().clone();
    scene.json(&["deploy", "--plan", out]);
    let status = scene.json(&["status", "-c", "local"]);
    for (key, object) in status["dags"].as_object().unwrap() {
        assert_eq!(&planned[key]["object"], object);
    }
    assert_eq!(planned.len(), 2);

    // Other sources.
    scene.replace("hello/greeting.py", "world", "moon");
    plan(&[]);
    scene.replace("hello/greeting.py", "moon", "mars");
    assert_eq!(refused("image: planned for sha256:"), 2);
    // And what was planned is deployed once the sources are those again.
    scene.replace("hello/greeting.py", "mars", "moon");
    assert_eq!(scene.json(&["deploy", "--plan", out])["generation"], 3);

    std::fs::write(out, "{}").unwrap();
    let finished = scene.run(&["deploy", "--plan", out]);
    assert_eq!(finished.status, 2);
    assert!(finished.stderr.contains("cannot be used as a plan"));
}

fn an_image_that_the_registry_lost_is_pushed_again(scene: &Scene<'_>) {
    scene.json(&["deploy", "-c", "local", "--start-time", "2026-01-31"]);
    let first = scene.json(&["status", "-c", "local"]);
    scene.replace("hello/greeting.py", "world", "moon");
    scene.json(&["deploy", "-c", "local", "--start-time", "2026-02-01"]);
    let images = scene.project.path().join(".local/images");
    std::fs::remove_dir_all(&images).unwrap();

    // Who has not built it can only say so.
    let other = Machine::new();
    let refused = other.forebay(scene.project.path(), ["rollback", "-c", "local"]);
    assert_eq!(refused.status, 8, "{}", refused.stderr);
    assert!(
        refused
            .stderr
            .contains("generation 1 cannot be restored: the image")
    );

    let foreseen = scene.run(&["rollback", "-c", "local", "--dry-run"]);
    assert_eq!(foreseen.status, 0, "{}", foreseen.stderr);
    let text = foreseen
        .stdout
        .lines()
        .map(|line| match line.split_once(" left on ") {
            Some((name, _)) => format!("{name} left TIME: RUNS\n"),
            None => format!("{line}\n"),
        });
    insta::assert_snapshot!(text.collect::<String>(), @r"
    local: it would restore generation 1; DAG files: 2 replaced
    cleanup (cleanup__v0_BROKEN__2026_01_31_00_00_00, '@hourly') was away; it left TIME: RUNS
    greeting (greeting__v0_BROKEN__2026_01_31_00_00_00, '@daily') was away; it left TIME: RUNS
    --from-now gives them a new start instead
    ");
    assert!(!images.exists());

    let back = scene.json(&["rollback", "-c", "local"]);
    assert_eq!(back["rollback_of"], 1);
    assert_eq!(back["blobs_sent"], 15);
    assert_eq!(back["catch_up"].as_array().unwrap().len(), 2);
    let status = scene.json(&["status", "-c", "local"]);
    assert_eq!(status["dags"], first["dags"]);
    assert_eq!(status["image"], first["image"]);
    assert!(images.exists());

    // The same DAGs as if they had been deployed now.
    scene.json(&["rollback", "-c", "local", "2"]);
    let anew = scene.json(&["rollback", "-c", "local", "1", "--from-now"]);
    assert_eq!(anew["added"].as_array().unwrap().len(), 0);
    assert_eq!(anew["replaced"].as_array().unwrap().len(), 2);
    assert_eq!(anew["catch_up"].as_array().unwrap().len(), 0);
    let status = scene.json(&["status", "-c", "local"]);
    let keys = status["dags"].as_object().unwrap().keys();
    assert!(keys.clone().all(|key| !key.contains("2026_01_31")));
    assert_eq!(keys.len(), 2);
}

fn a_report_asks_every_repository_that_was_deployed_from(scene: &Scene<'_>) {
    scene.json(&["deploy", "-c", "local"]);
    scene.replace("deployment_config.py", ".local/images", ".local/moved");
    scene.replace("hello/greeting.py", "world", "moon");
    scene.json(&["deploy", "-c", "local"]);
    let images = || {
        let machine = scene.machine;
        let report = machine.forebay_json(scene.project.path(), ["report", "-c", "local"]);
        let images = report["images"].as_object().unwrap().values();
        let told = images.map(|image| {
            let layers = image["layers"].as_array().unwrap().len();
            let repository = image["repository"].as_str().unwrap();
            let folder = scene.project.path().to_str().unwrap();
            let repository = repository.replace(&format!("{folder}/"), "");
            format!(
                "{repository}: {}, {layers} layers",
                image["state"].as_str().unwrap()
            )
        });
        let mut told: Vec<_> = told.collect();
        told.sort();
        told
    };
    let both = [
        "oci:.local/images: present, 14 layers",
        "oci:.local/moved: present, 14 layers",
    ];
    assert_eq!(images(), both);
    std::fs::remove_dir_all(scene.project.path().join(".local/images")).unwrap();
    assert_eq!(images(), ["oci:.local/images: gone, 0 layers", both[1]]);
}

fn generations_are_compared_told_and_pruned(scene: &Scene<'_>) {
    let deploy = || scene.json(&["deploy", "-c", "local", "--start-time", "2026-01-31"]);
    let nothing = scene.run(&["diff", "-c", "local"]);
    assert_eq!(nothing.status, 2, "{}", nothing.stderr);
    deploy();
    scene.replace("hello/greeting.py", "world", "moon");
    deploy();

    let difference = scene.run(&["diff", "-c", "local", "--exit-code"]);
    assert_eq!(difference.status, 3, "{}", difference.stderr);
    let lines = difference
        .stdout
        .lines()
        .map(|line| match line.find("sha256:") {
            Some(digest) => format!("{}DIGEST", &line[..digest]),
            None => line.to_owned(),
        });
    let lines = lines.map(|line| line.replace("   \t", " "));
    // The lines around are the DAG format's.
    let lines = lines.filter(|line| !line.starts_with(' ') && !line.starts_with("@@"));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    local: from generation 1 (0+BROKEN) to generation 2 (0+BROKEN)
    image DIGEST
    file hello/greeting.py changed
    --- dags/cleanup__v0_BROKEN__2026_01_31_00_00_00_dag.py
    +++ dags/cleanup__v0_BROKEN__2026_01_31_00_00_00_dag.py
    -# bigflow-imageid: oci:.local/images@DIGEST
    +# bigflow-imageid: oci:.local/images@DIGEST
    -    'image': 'oci:.local/images@DIGEST
    +    'image': 'oci:.local/images@DIGEST
    --- dags/greeting__v0_BROKEN__2026_01_31_00_00_00_dag.py
    +++ dags/greeting__v0_BROKEN__2026_01_31_00_00_00_dag.py
    -# bigflow-imageid: oci:.local/images@DIGEST
    +# bigflow-imageid: oci:.local/images@DIGEST
    -    'image': 'oci:.local/images@DIGEST
    +    'image': 'oci:.local/images@DIGEST
    ");
    let same = scene.json(&["diff", "-c", "local", "2", "2"]);
    assert_eq!(same["dags"].as_array().unwrap().len(), 0);
    assert_eq!(scene.run(&["diff", "-c", "local", "7"]).status, 2);

    // Another machine reads it all from the bucket.
    let other = Machine::new();
    let there = other.forebay_json(scene.project.path(), ["diff", "-c", "local"]);
    assert_eq!(there["contents"]["files"][0]["name"], "hello/greeting.py");
    assert_eq!(there["contents"]["packages"].as_array().unwrap().len(), 0);

    let status = scene.json(&["status", "-c", "local"]);
    assert_eq!(status["rollback_targets"][0]["generation"], 1);
    assert_eq!(status["rollback_targets"][0]["available"], true);
    let refused = scene.run(&["gc", "-c", "local"]);
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    let gc = [
        "gc",
        "--environment",
        "-c",
        "local",
        "--keep",
        "1",
        "--grace",
        "0",
    ];
    let would = scene.run(&[&gc[..], &["--dry-run"]].concat());
    insta::assert_snapshot!(without_numbers(&would.stdout), @r"
    local: would delete 1 record, 1 retention tag, 3 objects (BYTES)
    generation 1
    tag forebay-hello_local-1
    kept generation 2
    ");
    let done = scene.json(&gc);
    assert_eq!(done["kept"], serde_json::json!([2]));
    assert_eq!(done["generations"], serde_json::json!([1]));
    assert_eq!(done["tags"], serde_json::json!(["forebay-hello_local-1"]));
    let index = std::fs::read_to_string(scene.project.path().join(".local/images/index.json"));
    let index = index.unwrap();
    assert!(!index.contains("forebay-hello_local-1") && index.contains("forebay-hello_local-2"));
    assert_eq!(deploy()["changed"], false);
    // A machine that has seen nothing finds nothing more.
    let status = Machine::new().forebay_json(scene.project.path(), ["status", "-c", "local"]);
    assert_eq!(status["state"], "committed");
    assert_eq!(status["rollback_targets"].as_array().unwrap().len(), 0);
    let free = scene.run(&["unlock", "-c", "local", "2"]);
    assert_eq!(
        (free.status, free.stdout.as_str()),
        (0, "local: nobody holds it\n")
    );
}
