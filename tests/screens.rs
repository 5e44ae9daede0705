//! What a person sees of every command: with nothing there yet, when it succeeds, and for each
//! exit status when it fails; into a pipe, and on terminals of 60 and 120 columns.
//!
//! Paths, digests and times are replaced by others of the same length, so that tables and wrapped
//! lines stay as they were seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

#[path = "support/desk.rs"]
mod desk;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/refusing_server.rs"]
mod refusing_server;
#[path = "support/terminal.rs"]
mod terminal;

use desk::Desk;
use refusing_server::refusing_server;
use terminal::Seen;

const WORKFLOWS: [&str; 2] = ["daily", "hourly"];

/// A project of two workflows that needs no package index and no base image.
fn write_project(desk: &Desk) {
    for (name, text) in [
        (
            "Dockerfile",
            "FROM python:3.11-slim\nWORKDIR /app\nCOPY ./resources resources\nCOPY ./dist dist\nRUN pip install dist/*.whl\n",
        ),
        ("resources/requirements.txt", ""),
        ("resources/greeting.txt", "Hello!\n"),
        (".gitignore", "/.local\n/.dags\n/.image\n/dist\n/build\n"),
        (
            "setup.py",
            "import bigflow.build\n\nbigflow.build.setup(name='hello')\n",
        ),
        (
            "pyproject.toml",
            "[tool.forebay.environments.local]\nbase = 'scratch'\npython = '3.11'\n",
        ),
        (
            "deployment_config.py",
            "from bigflow import Config\n\n\
             deployment_config = Config('local', {\n    'docker_repository': 'oci:.local/images',\n    'dags_bucket': 'file://.local/composer',\n}).add_configuration('dev', {\n    'gcp_project_id': 'my-project',\n    'docker_repository': 'europe-docker.pkg.dev/{gcp_project_id}/workflows/hello',\n    'dags_bucket': 'my-composer-bucket',\n})\n",
        ),
        ("hello/__init__.py", ""),
    ] {
        desk.write(&format!("hello/{name}"), text);
    }
    for workflow in WORKFLOWS {
        write_workflow(desk, workflow, "hello");
    }
}

fn write_workflow(desk: &Desk, workflow: &str, says: &str) {
    let text = format!(
        "import bigflow\n\nclass PrintJob(bigflow.Job):\n    def execute(self, context):\n        print('{says}')\n\n\
         workflow = bigflow.Workflow(workflow_id='{workflow}', definition=[PrintJob('print')], schedule_interval='@{workflow}')\n"
    );
    desk.write(&format!("hello/hello/{workflow}.py"), &text);
}

/// What was seen since the last time is as it was.
fn assert_as_before(desk: &mut Desk, name: &str) {
    insta::assert_snapshot!(format!("{name}_{}", desk.seen.name()), desk.take());
}

/// No store, no project, no generation.
fn nothing_is_there_yet(desk: &mut Desk) {
    for line in [
        "status",
        "init",
        "doctor",
        "deploy -c prod",
        "run --workflow daily",
        "project-version",
        "store ls",
        "store stats",
        "store verify",
        "store scan .",
        "store rebuild-index",
        "gc",
        "gc --dry-run",
        "release",
        "man ../pages",
        "completions",
    ] {
        desk.at("empty", line);
    }
    assert_as_before(desk, "nowhere");

    write_project(desk);
    for line in [
        "init",
        "project-version",
        "config -c local",
        "status -c local",
        "history -c local",
        "diff -c local",
        "report -c local",
        "rollback -c local",
        "rollback -c local --dry-run",
        "resume -c local",
        "abort -c local",
        "unlock -c local 1",
        "gc --environment -c local",
        "cache status -c local",
        "cache push -c local",
        "cache pull -c local",
        "cache gc -c local",
        "why-rebuilt -c local",
        "logs -c local",
        "image base push -c local",
        "doctor -c local",
        "plan -c local",
        "plan -c local --json",
    ] {
        desk.forebay(line);
    }
    assert_as_before(desk, "before_the_first_deploy");
}

/// Two generations, a rollback, and every other command.
fn everything_succeeds(desk: &mut Desk) {
    for line in [
        "image lock -c local",
        "image plan -c local",
        "image migrate -c local",
        "build-dags -c local",
        "build-image -c local",
        "build-package",
        "build -c local",
        "build -c local --check",
        "why-rebuilt -c local",
        "run --workflow daily -c local",
        "run --job hourly.print -c local",
        "logs -c dev",
        "config -c dev",
    ] {
        desk.forebay(line);
    }
    assert_as_before(desk, "success_of_building");

    for line in [
        "deploy -c local",
        "deploy -c local",
        "plan -c local",
        "status -c local",
        "history -c local",
        "doctor -c local",
    ] {
        desk.forebay(line);
    }
    write_workflow(desk, "daily", "good morning");
    for line in [
        "why-rebuilt -c local",
        "plan -c local",
        "deploy -c local",
        "status -c local",
        "history -c local",
        "diff -c local",
        "rollback -c local --dry-run",
        "rollback -c local",
        "status -c local",
        "history -c local",
        "deploy-image -c local --allow-older",
        "deploy-dags -c local --allow-older",
        "deploy-dags -c local --workflow daily",
        "history -c local -n 2",
        "diff -c local 1 3",
        "report -c local",
        "resume -c local",
        "abort -c local",
        "gc --environment --keep 1 --grace 0 --dry-run -c local",
        "gc --environment --keep 1 --grace 0 -c local",
    ] {
        desk.forebay(line);
    }
    assert_as_before(desk, "success_of_deploying");
}

/// Every exit status but success, and the states that lead there.
fn each_exit_status(desk: &mut Desk) {
    // 1: it failed, and nothing changed.
    desk.write("hello/hello/broken.py", "import not_there\n");
    desk.forebay("deploy -c local");
    std::fs::remove_file(desk.path("hello/hello/broken.py")).unwrap();
    desk.forebay("deploy -c local -r 127.0.0.1:9/team/hello");
    // 2: the command line or the project is wrong.
    for line in [
        "deploi",
        "deploy --confg local",
        "deploy -c lokal",
        "deploy -c local --workflow dayly",
        "status -c local --colour",
        "unlock",
        "diff -c local 70 71",
        "config -c local --json --log-format yaml",
        "run --job daily",
        "run --workflow dayly",
        "logs -c local",
        "store cat xyz",
        "store why 0000000000000000000000000000000000000000000000000000000000000000",
        "gc -c local",
        "gc --grace soon",
        "cache keygen setup.py",
        "init --ids stable --dag-format bigflow-1.11",
        "build-requirements",
        "project-version --nonsense",
        "status -C nowhere",
    ] {
        desk.forebay(line);
    }
    let configuration = std::fs::read_to_string(desk.path("hello/deployment_config.py")).unwrap();
    desk.write(
        "hello/deployment_config.py",
        "from bigflow import Config\n\ndeployment_config = Config('local', {,\n",
    );
    desk.forebay("status -c local");
    desk.write("hello/deployment_config.py", &configuration);
    assert_as_before(desk, "failed_and_usage");

    // 3: there are changes, and somebody has touched a file.
    write_workflow(desk, "daily", "good evening");
    desk.forebay("plan -c local --exit-code");
    desk.forebay("diff -c local 2 3 --exit-code");
    let dag = desk.dag("daily");
    let bytes = std::fs::read(&dag).unwrap();
    std::fs::write(&dag, "import this\n").unwrap();
    desk.forebay("status -c local --exit-code");
    // 6: refused.
    desk.forebay("plan -c local");
    desk.forebay("deploy -c local");
    desk.forebay("rollback -c local");
    std::fs::write(&dag, bytes).unwrap();
    std::fs::write(dag.with_file_name("others.py"), "pass\n").unwrap();
    desk.forebay("deploy -c local --clear-dags-folder");
    std::fs::remove_file(dag.with_file_name("others.py")).unwrap();
    assert_as_before(desk, "changes_and_refused");

    // 4: who are you?
    let address = refusing_server();
    desk.forebay(&format!(
        "deploy -c local --restore-drift -r {address}/team/hello"
    ));
    desk.set("STORAGE_EMULATOR_HOST", &format!("http://{address}"));
    desk.forebay("deploy -c local -b bucket");
    desk.forebay("status -c local -b bucket");
    desk.forebay("doctor -c local -b bucket");
    desk.set("STORAGE_EMULATOR_HOST", "");
    desk.forebay("status -c dev --access-token-file ../home/no-token");
    desk.forebay("status -c dev -a vault");
    assert_as_before(desk, "denied");

    // 5: somebody else is at it, and 7: what an interrupted deploy leaves.
    desk.break_off("deploy -c local --restore-drift");
    for line in [
        "status -c local",
        "deploy -c local",
        "plan -c local",
        "resume -c local",
        "abort -c local",
        "rollback -c local",
        "doctor -c local",
        "unlock -c local 1",
    ] {
        desk.forebay(line);
    }
    desk.forebay("unlock -c local 6");
    desk.forebay("resume -c local");
    desk.break_off("deploy -c local --restore-drift --allow-older");
    desk.forebay("unlock -c local 6");
    assert_as_before(desk, "held");
    desk.forebay("status -c local");
    desk.forebay("abort -c local");
    desk.forebay("status -c local");
    // A folder stands where a file is to be written.
    write_workflow(desk, "daily", "good night");
    let dags = desk.path("hello/.local/composer/dags");
    std::fs::create_dir(dags.join("daily__v0_BROKEN__2025_01_01_00_00_00_dag.py")).unwrap();
    for line in [
        "deploy -c local --workflow daily -t 2025-01-01",
        "status -c local",
        "resume -c local",
        "abort -c local",
    ] {
        desk.forebay(line);
    }

    // 8: there is nothing to return to.
    desk.forebay("rollback -c local 70");
    std::fs::remove_dir_all(desk.path("hello/.local/images")).unwrap();
    std::fs::remove_dir_all(desk.path("home/.local/share/forebay")).unwrap();
    desk.forebay("status -c local");
    desk.forebay("rollback -c local");
    desk.forebay("doctor -c local");
    assert_as_before(desk, "interrupted_and_lost");
}

/// Caches, and a store of known objects.
fn stores_and_caches(desk: &mut Desk) {
    desk.forebay("cache keygen ../release.key --domain release");
    let made = desk.json("cache keygen ../used.key --domain release");
    desk.set("FOREBAY_CACHE", "file://../cache");
    desk.set("FOREBAY_CACHE_SIGNING_KEY_FILE", "../used.key");
    desk.set(
        "FOREBAY_CACHE_TRUSTED_KEYS",
        made["trusted_key"].as_str().unwrap(),
    );
    for line in [
        "cache status -c local",
        "cache push -c local",
        "cache status -c local",
        "cache pull -c local",
        "cache gc -c local",
    ] {
        desk.forebay(line);
    }
    assert_as_before(desk, "success_of_caching");

    desk.set("FOREBAY_STORE", "../other-store");
    desk.write("stored/large", &"0123456789".repeat(10_000));
    desk.write("stored/small", "small\n");
    let digest = desk.json("store put ../stored/small")["digest"].clone();
    let digest = digest.as_str().unwrap();
    for line in [
        "store put ../stored/small",
        "store put ../stored/large --root pin/large",
        &format!("store cat {digest}"),
        &format!("store why {digest}"),
        "store ls",
        "store scan ../stored",
        "store scan ../stored",
        "store stats",
        "store export pin/large -o ../large.forebay",
        "gc --dry-run --grace 0",
        "gc --grace 0",
        "store verify",
        "store rebuild-index",
    ] {
        desk.forebay(line);
    }
    desk.set("FOREBAY_STORE", "../third-store");
    desk.forebay("store import ../large.forebay");
    assert_as_before(desk, "success_of_storing");
}

/// What comes before the first deploy, and long after it.
fn beginnings_and_releases(desk: &mut Desk) {
    let Some(uv) = forebay_support::installed("FOREBAY_TEST_UV") else {
        return;
    };
    let path = std::env::var_os("PATH").unwrap();
    let folders = std::iter::once(uv.parent().unwrap().to_owned());
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).unwrap();
    desk.set("PATH", path.to_str().unwrap());
    // The newest Python that BigFlow's scaffold can be installed in.
    if !desk.use_python("FOREBAY_TEST_SCAFFOLD_PYTHON") {
        return;
    }
    desk.at(
        "empty",
        "start-project --name greenhouse -p my-project -b my-bucket",
    );
    desk.at(
        "empty",
        "start-project --name greenhouse -p my-project -b my-bucket",
    );
    desk.at("empty", "start-project --name greenhouse -p my-project");
    desk.write("hello/resources/tools.in", "# Nothing yet.\n");
    desk.forebay("build-requirements resources/tools.in");
    for line in [
        "init -q --bare ../origin",
        "init -q .",
        "remote add origin ../origin",
        "add -A",
        "commit -q -m Everything",
    ] {
        desk.git(line);
    }
    for line in ["release", "release", "project-version"] {
        desk.forebay(line);
    }
    desk.git("remote set-url origin ../nowhere");
    desk.forebay("release");
    assert_as_before(desk, "beginnings_and_releases");
}

#[test]
fn into_a_pipe() {
    all(Seen::Pipe);
}

#[test]
fn on_a_narrow_terminal() {
    all(Seen::Terminal(60));
}

#[test]
fn on_a_wide_terminal() {
    all(Seen::Terminal(120));
}

fn all(seen: Seen) {
    let Some(mut desk) = Desk::new(seen) else {
        return;
    };
    nothing_is_there_yet(&mut desk);
    everything_succeeds(&mut desk);
    each_exit_status(&mut desk);
    stores_and_caches(&mut desk);
    beginnings_and_releases(&mut desk);
}
