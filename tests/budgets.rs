//! What a deploy may cost, counted at the servers and by the kernel: requests, bytes, programs
//! started, instructions, allocations. Counts are exact, and what varies is compared within one run;
//! nothing here is a time. A budget that is left says what grew and by how much; a change
//! that makes something cheaper lowers its budget.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

#[path = "support/caches.rs"]
#[allow(dead_code)]
mod caches;
#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/meter.rs"]
mod meter;
#[path = "support/valgrind.rs"]
mod valgrind;

use caches::{Site, Surroundings};
use docker_registry::DockerRegistry;
use emulator::Emulator;
use forebay_support::copy_folder;
use meter::{Meter, Passed};
use valgrind::Counted;

/// An unchanged deploy: the manifest; HEAD and the listing.
const NOTHING: Budget = Budget {
    registry: 1,
    bucket: 2,
    programs: &[],
};
/// Layers of the image: those that the wheels share by the hash of their names, the requirements
/// file, the project.
const LAYERS: usize = 9;

const BUCKET: &str = "composer-bucket";
/// The example's two, and those that are added.
const WORKFLOWS: usize = 20;
/// Wheels that share the dependency layers.
const WHEELS: usize = 24;
/// The programs that are counted. What they start themselves differs with the machine: pip asks
/// many what they are, to describe itself to the package index.
const PROGRAMS: [&str; 9] = [
    "git", "python", "uv", "pip", "docker", "podman", "buildah", "gcloud", "sh",
];

/// Real servers, each behind a meter.
struct Scene {
    surroundings: Surroundings,
    to_registry: Meter,
    to_bucket: Meter,
    _registry: DockerRegistry,
    _emulator: Emulator,
}

/// What a command has cost.
struct Cost {
    registry: Vec<Passed>,
    bucket: Vec<Passed>,
    /// How often each of [`PROGRAMS`] was started.
    programs: BTreeMap<String, usize>,
}

/// What it may cost.
struct Budget {
    registry: usize,
    bucket: usize,
    programs: &'static [(&'static str, usize)],
}

/// All that is over or under its budget.
#[derive(Default)]
struct Ledger(Vec<String>);

impl Scene {
    /// `None` where a server is not installed and nobody insists.
    fn new() -> Option<Self> {
        let wheels: Vec<String> = (0..WHEELS).map(|n| format!("filler{n}:400")).collect();
        let mut wheels: Vec<&str> = wheels.iter().map(String::as_str).collect();
        wheels.push("thing:10");
        let surroundings = Surroundings::with_wheels(&wheels)?;
        let registry = DockerRegistry::start()?;
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let emulator = runtime.block_on(Emulator::start())?;
        runtime.block_on(emulator.create_bucket(BUCKET));
        Some(Self {
            to_registry: Meter::start(registry.address()),
            to_bucket: Meter::start(&emulator.address),
            surroundings,
            _registry: registry,
            _emulator: emulator,
        })
    }

    /// A machine that has nothing but a clone of the project.
    fn machine(&self, name: &str) -> Site {
        let site = self
            .surroundings
            .site(name, "UTC", "022")
            .with_variable("STORAGE_EMULATOR_HOST", self.to_bucket.address());
        let requirements: String = (0..WHEELS).map(|n| format!("filler{n}==1.0\n")).collect();
        write(&site, "resources/requirements.txt", &requirements);
        write(&site, "hello/more.py", &workflows(WORKFLOWS - 2));
        commit(&site, "init -q");
        site
    }

    /// Runs a command against the environment and counts.
    fn measure(&self, site: &Site, command: &str, more: &[&str]) -> Cost {
        self.to_registry.take();
        self.to_bucket.take();
        let traces = tempfile::tempdir().unwrap();
        let repository = format!("{}/team/hello", self.to_registry.address());
        let mut strace = site.command("strace");
        strace
            .args(["-ff", "-qq", "-e", "trace=execve", "-e", "signal=none"])
            .arg("-o")
            .arg(traces.path().join("trace"))
            .arg(env!("CARGO_BIN_EXE_forebay"))
            .arg("--python")
            .arg(site.python())
            .args([command, "-c", "local", "-r", &repository, "-b", BUCKET])
            .args(more);
        succeed(strace);
        Cost {
            registry: self.to_registry.take(),
            bucket: self.to_bucket.take(),
            programs: programs(traces.path()),
        }
    }
}

impl Cost {
    fn up(passed: &[Passed]) -> usize {
        passed.iter().map(|request| request.up).sum()
    }

    fn down(passed: &[Passed]) -> usize {
        passed.iter().map(|request| request.down).sum()
    }
}

impl Ledger {
    fn exactly(&mut self, what: &str, budget: usize, seen: usize, detail: &str) {
        let more = seen as i64 - budget as i64;
        if more != 0 {
            self.0.push(format!(
                "{what}: {seen}, the budget is {budget} ({more:+}){detail}"
            ));
        }
    }

    fn at_most(&mut self, what: &str, limit: usize, seen: usize) {
        if seen > limit {
            let more = 100.0 * (seen as f64 / limit.max(1) as f64 - 1.0);
            self.0.push(format!(
                "{what}: {seen}, the limit is {limit} (+{more:.0} %)"
            ));
        }
    }

    fn count(&mut self, scenario: &str, cost: &Cost, budget: &Budget) {
        for (name, budget, seen) in [
            ("registry", budget.registry, &cost.registry),
            ("bucket", budget.bucket, &cost.bucket),
        ] {
            let what = format!("{scenario}, requests to the {name}");
            self.exactly(&what, budget, seen.len(), &kinds(seen));
        }
        for name in PROGRAMS {
            let allowed = budget.programs.iter().find(|(program, _)| *program == name);
            let allowed = allowed.map_or(0, |(_, count)| *count);
            let seen = cost.programs.get(name).copied().unwrap_or(0);
            self.exactly(&format!("{scenario}, starts of {name}"), allowed, seen, "");
        }
    }

    fn settle(self) {
        assert!(self.0.is_empty(), "\n{}", self.0.join("\n"));
    }
}

/// How many requests of each kind there were: without digests, sessions and names of files.
fn kinds(passed: &[Passed]) -> String {
    let mut kinds = BTreeMap::<String, usize>::new();
    for request in passed {
        let path = request.what.split("sha256:").next().unwrap();
        let path = path.split("/uploads/").next().unwrap();
        let path = path.rsplit_once("%2F").map_or(path, |(folder, _)| folder);
        *kinds.entry(path.to_owned()).or_default() += 1;
    }
    let lines = kinds
        .iter()
        .map(|(kind, count)| format!("\n    {count} x {kind}"));
    lines.collect()
}

fn write(site: &Site, name: &str, text: &str) {
    std::fs::write(site.project.join(name), text).unwrap();
}

fn append(site: &Site, name: &str, text: &str) {
    let before = std::fs::read_to_string(site.project.join(name)).unwrap();
    write(site, name, &(before + text));
    commit(site, "status -s");
}

/// Commits everything, in a repository that `first` may make.
fn commit(site: &Site, first: &str) {
    for arguments in [first, "add -A", "commit -q -m change"] {
        let mut git = site.command("git");
        git.args(arguments.split(' '));
        succeed(git);
    }
}

fn succeed(mut command: Command) -> Vec<u8> {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output.stderr
}

fn workflows(count: usize) -> String {
    let job = "import bigflow\n\n\nclass Step(bigflow.Job):\n    id = 'step'\n\n    def execute(self, context):\n        pass\n\n\n";
    let workflow = |n| {
        format!(
            "workflow_{n} = bigflow.Workflow(workflow_id='workflow_{n}', definition=[Step()])\n"
        )
    };
    job.to_owned() + &(0..count).map(workflow).collect::<String>()
}

/// How often each of [`PROGRAMS`] was started, from one trace a process.
fn programs(traces: &Path) -> BTreeMap<String, usize> {
    let mut programs = BTreeMap::new();
    for trace in std::fs::read_dir(traces).unwrap() {
        let text = std::fs::read_to_string(trace.unwrap().path()).unwrap();
        let started = text.lines().filter(|line| line.ends_with(" = 0"));
        for line in started {
            let path = line.split('"').nth(1).unwrap();
            let name = path.rsplit('/').next().unwrap();
            // python, python3 and python3.11 are one program.
            let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
            *programs.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(
        programs.remove("forebay"),
        Some(1),
        "no trace: {programs:?}"
    );
    programs
}

#[test]
fn every_deploy_keeps_to_its_budget() {
    let Some(scene) = Scene::new() else { return };
    let mut ledger = Ledger::default();
    let machine = scene.machine("first");

    let first = scene.measure(&machine, "deploy", &["--no-adopt"]);
    // Each blob is asked for and sent in one POST and one PUT; a manifest for each of two tags.
    let blobs = LAYERS + 1;
    ledger.count(
        "first deploy",
        &first,
        &Budget {
            registry: 1 + 2 * blobs + 2,
            // Before and after: HEAD, listings. Each file twice: its bytes, and where it is live.
            // The list of the image's contents, the record, HEAD twice.
            bucket: 3 + 2 * WORKFLOWS + 4,
            programs: &[("git", 7), ("python", 4)],
        },
    );
    let everything = Cost::up(&first.registry);

    let unchanged = scene.measure(&machine, "deploy", &[]);
    ledger.count("unchanged deploy", &unchanged, &NOTHING);
    let sent = Cost::up(&unchanged.registry) + Cost::up(&unchanged.bucket);
    ledger.exactly("unchanged deploy, bytes sent", 0, sent, "");

    append(&machine, "hello/greeting.py", "\n# One more line.\n");
    let line = scene.measure(&machine, "deploy", &[]);
    // As before, and each file's predecessor is deleted.
    let redeploy = 3 + 3 * WORKFLOWS + 4;
    ledger.count(
        "one line changed",
        &line,
        &Budget {
            registry: 7,
            bucket: redeploy,
            programs: &[("git", 8), ("python", 1)],
        },
    );
    ledger.at_most(
        "one line changed, bytes to the registry (a twentieth of everything)",
        everything / 20,
        Cost::up(&line.registry),
    );

    append(&machine, "resources/requirements.txt", "thing==1.0\n");
    let dependency = scene.measure(&machine, "deploy", &[]);
    ledger.count(
        "one dependency added",
        &dependency,
        &Budget {
            // Another dependency layer, and that of the requirements file.
            registry: 7 + 4,
            bucket: redeploy,
            programs: &[("git", 8), ("python", 2)],
        },
    );
    // Eight layers share the small wheels; which of them one falls into, its name decides.
    ledger.at_most(
        "one dependency added, bytes to the registry (a quarter of everything)",
        everything / 4,
        Cost::up(&dependency.registry),
    );

    let back = scene.measure(&machine, "rollback", &[]);
    ledger.count(
        "rollback",
        &back,
        &Budget {
            registry: 1,
            // The bytes are there.
            bucket: 3 + 2 * WORKFLOWS + 3,
            programs: &[],
        },
    );
    let sent = Cost::up(&back.registry);
    ledger.exactly("rollback, bytes to the registry", 0, sent, "");
    ledger.settle();
}

#[test]
fn an_empty_machine_with_a_warm_cache_keeps_to_its_budget() {
    let Some(scene) = Scene::new() else { return };
    let mut ledger = Ledger::default();
    let cache = format!("gs://{BUCKET}/cache");
    let cache = ["--cache", &cache, "--cache-unsigned"];
    let first = scene.machine("first");
    let filled = [&cache[..], &["--cache-write", "--no-adopt"]].concat();
    let filled = scene.measure(&first, "deploy", &filled);

    // A clone of the same commit, and nothing else.
    let empty = scene.machine("empty");
    std::fs::remove_dir_all(&empty.project).unwrap();
    copy_folder(&first.project, &empty.project);
    let taken = scene.measure(&empty, "deploy", &cache);
    ledger.count(
        "empty machine, warm cache",
        &taken,
        &Budget {
            // One entry has everything that a build looks up.
            bucket: NOTHING.bucket + 1,
            // git is asked for the version, Python what it is.
            programs: &[("git", 6), ("python", 1)],
            ..NOTHING
        },
    );
    // Of the image's bytes none is brought: the registry has it.
    ledger.at_most(
        "empty machine, warm cache, bytes received (a tenth of what was sent to fill it)",
        Cost::up(&filled.bucket) / 10,
        Cost::down(&taken.bucket) + Cost::down(&taken.registry),
    );
    ledger.settle();
}

/// Instructions and allocations of an unchanged deploy, as valgrind counts them. What does not
/// depend on the project, reading the certificates of the machine above all, is in both numbers.
#[test]
fn an_unchanged_deploy_grows_with_the_project_and_no_faster() {
    let Some(surroundings) = Surroundings::with_wheels(&["thing:10"]) else {
        return;
    };
    let mut ledger = Ledger::default();
    let counted = [WORKFLOWS, 10 * WORKFLOWS].map(|count| {
        let site = surroundings.site(&format!("with-{count}"), "UTC", "022");
        write(&site, "resources/requirements.txt", "thing==1.0\n");
        write(&site, "hello/more.py", &workflows(count - 2));
        for _ in 0..2 {
            let finished = site.run(&["deploy", "-c", "local"]);
            assert_eq!(finished.status, 0, "{}", finished.stderr);
        }
        let python = site.python().to_str().unwrap();
        let deploy = ["--python", python, "deploy", "-c", "local"];
        [Counted::Instructions, Counted::Allocations].map(|counted| {
            let program = Path::new(env!("CARGO_BIN_EXE_forebay"));
            counted.of(site.command("valgrind"), program, &deploy)
        })
    });
    let [few, many] = counted;
    for (position, what) in ["instructions", "allocations"].into_iter().enumerate() {
        // Twice as many were seen. What grows with the square would be a hundred times as much.
        ledger.at_most(
            &format!("unchanged deploy, ten times the workflows, {what} (three times those of {WORKFLOWS})"),
            3 * few[position],
            many[position],
        );
    }
    // 125 were seen: its line of the record, of HEAD, of the listing, of the files that decide it.
    ledger.at_most(
        "unchanged deploy, allocations for each workflow",
        200,
        many[1].saturating_sub(few[1]) / (9 * WORKFLOWS),
    );
    ledger.settle();
}
