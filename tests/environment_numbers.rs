//! How many requests a deploy costs, how many of them run at once, and how deep they are.
//! `benches/environment.rs` says what they cost this machine.

#![allow(clippy::unwrap_used, clippy::panic)]
// How a process of its own tells the test what it found.
#![allow(clippy::print_stdout)]

#[path = "support/fake_gcs_http.rs"]
#[allow(dead_code)]
mod fake_gcs_http;
#[path = "support/fakes.rs"]
mod fakes;
#[path = "support/many_files.rs"]
mod many_files;
#[path = "support/valgrind.rs"]
mod valgrind;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use fake_gcs_http::FakeGcs;
use fakes::fake_registry::FakeRegistry;
use fakes::faults::Calls;
use fakes::world::{Machine, Wish, World, deploy, key, wish};
use forebay::bucket::{Endpoint, GcsBucket};
use forebay::clock::SystemClock;
use forebay::environment::Environment;
use forebay::http::{HttpClient, HttpOptions};
use forebay::progress::Silent;
use valgrind::Counted;

/// A thousand workflows, of which the first `changed` are of version 1.1. All run one image.
fn thousand(changed: usize) -> Wish {
    let version = if changed == 0 { "1.0" } else { "1.1" };
    let dags: Vec<(&'static str, &'static str)> = (0..1_000)
        .map(|n| {
            let content = if n < changed { "changed" } else { "as it was" };
            (&*format!("workflow_{n:04}").leak(), content)
        })
        .collect();
    wish(version, "one", &dags)
}

/// How often a call of that kind was made.
fn count(calls: &Calls, start: &str) -> usize {
    let log = calls.log();
    log.iter()
        .filter(|call| call.what.starts_with(start))
        .count()
}

#[tokio::test]
async fn an_unchanged_deploy_is_three_requests_at_once() {
    let (world, anna) = (World::new(), Machine::new("anna"));
    let set = wish("1.0", "one", &[("daily", "a"), ("hourly", "b")]);
    world.deploy(&anna, &set).await.unwrap();
    // One that has seen it live, and one that has seen nothing, as in a fresh pipeline.
    for machine in [anna, Machine::new("ben")] {
        world.calls.reset();
        assert!(!world.deploy(&machine, &set).await.unwrap().changed);
        assert_eq!(world.calls.log().len(), 3);
        assert!(world.calls.writes().is_empty());
        // All three are on their way before the first is answered: one round trip.
        assert_eq!(world.calls.widest(), 3, "{:?}", world.calls.log());
    }
}

#[tokio::test(start_paused = true)]
async fn ten_changed_of_a_thousand_are_ten_uploads_at_once_and_three_records() {
    let (world, anna) = (World::new(), Machine::new("anna"));
    world.deploy(&anna, &thousand(0)).await.unwrap();
    world.calls.reset();
    // Longer than reading what is to be uploaded.
    world.calls.slow_uploads(1);
    let applied = world.deploy(&anna, &thousand(10)).await.unwrap();
    assert_eq!((applied.uploaded, applied.deleted), (10, 10));

    let calls = &world.calls;
    let writes = calls.writes();
    assert_eq!(count(calls, "write dags/"), 10, "{writes:?}");
    assert_eq!(calls.widest_of("write dags/"), 10);
    assert_eq!(count(calls, "delete dags/"), 10, "{writes:?}");
    // Their bytes, by which they can be brought back.
    assert_eq!(count(calls, "write forebay/v1/hello/objects/"), 10);
    // The generation, HEAD to applying, HEAD to committed.
    assert_eq!(count(calls, "write forebay/v1/hello/dev/"), 3);
    // The retention tag stays with the generation that first had this image; the version's is new.
    assert_eq!(count(calls, "PUT manifest"), 1, "{writes:?}");
    assert_eq!(writes.len(), 34, "{writes:?}");
    // Before and after.
    assert_eq!(count(calls, "list dags/"), 2);
    assert!(calls.log().len() <= 34 + 6, "{:?}", calls.log());
}

/// Over HTTP, with the pages of a listing.
#[tokio::test]
async fn the_pages_of_a_listing_are_all_that_grows_with_what_is_there() {
    let server = FakeGcs::start().await;
    let registry = Arc::new(FakeRegistry::new(Arc::default()));
    let anna = Machine::new("anna");
    let environment = || {
        let http = HttpClient::new(&HttpOptions::default()).unwrap();
        let endpoint = Endpoint::emulator(&server.address.to_string()).unwrap();
        Environment::new(
            key("hello", "dev"),
            Arc::new(GcsBucket::new("bucket", endpoint, http, None)),
            Arc::clone(&registry) as _,
            anna.store(),
            Arc::new(SystemClock),
            Arc::new(Silent),
            anna.options(),
        )
    };
    let set = wish("1.0", "one", &[("daily", "a"), ("hourly", "b")]);
    deploy(&environment(), &set).await.unwrap();
    for foreign in 0..30 {
        server.put(&format!("dags/foreign_{foreign:02}.py"), b"theirs");
    }
    let before = server.requests().len();
    assert!(!deploy(&environment(), &set).await.unwrap().changed);
    let asked = server.requests().split_off(before);
    let pages = 32_usize.div_ceil(fake_gcs_http::PAGE);
    // HEAD beside them; the image is asked of the registry.
    assert_eq!(asked.len(), pages + 1, "{asked:?}");
}

/// What a process of its own is to do: how many files, what with them, in which folder.
const TASK: &str = "FOREBAY_TEST_MANY_FILES";

#[test]
#[ignore = "runs in a process of its own, for the other tests"]
fn deploy_many_files() {
    let task = std::env::var(TASK).unwrap();
    let mut words = task.splitn(3, ' ');
    let files = words.next().unwrap().parse().unwrap();
    let (name, folder) = (words.next().unwrap(), words.next().unwrap().as_ref());
    if name == "prune" {
        let (records, peak) = many_files::measure_pruning(folder);
        println!("COST {records} {peak}");
        return;
    }
    let cost = many_files::measure(files, name, folder);
    println!("COST {} {} {}", cost.reads, cost.writes, cost.peak);
}

/// The arguments with which this program does that and nothing else.
const ALONE: [&str; 4] = ["deploy_many_files", "--exact", "--ignored", "--nocapture"];

fn in_a_process(files: usize, name: &str, folder: &Path) -> Vec<f64> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(ALONE)
        .env(TASK, format!("{files} {name} {}", folder.display()))
        // Each thread may get an arena of its own, which has nothing to do with us.
        .env("MALLOC_ARENA_MAX", "2")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let cost = text.lines().find_map(|line| line.strip_prefix("COST "));
    let cost = cost.unwrap_or_else(|| panic!("{output:?}"));
    let numbers = cost.split(' ').map(|number| number.parse().unwrap());
    numbers.collect()
}

/// As the kernel counts memory, in a process for each deploy, without optimisation.
#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_files_take_less_than_64_mib_and_requests_only_for_what_changes() {
    let folder = many_files::folder();
    // Ten pages of a listing, HEAD, the image; for a change also the listing that verifies it.
    for (name, most_reads, writes) in [("all", 14, 20_007), ("none", 12, 0), ("ten", 24, 23)] {
        let cost = in_a_process(10_000, name, folder.path());
        let [reads, written, peak] = cost[..] else {
            panic!("{cost:?}")
        };
        assert!(reads <= f64::from(most_reads), "{name}: {reads} reads");
        assert_eq!(written, f64::from(writes), "{name}");
        assert!(peak < 64.0, "{name}: {peak} MiB");
    }
}

/// What 1,000 and 10,000 files cost, counted in instructions: what grows with the square shows
/// long before it is felt. 9.96 times was seen.
#[cfg(target_os = "linux")]
#[test]
fn ten_times_the_files_cost_ten_times_as_much() {
    let counted = [1_000, 10_000].map(|files| {
        let folder = many_files::folder();
        in_a_process(files, "all", folder.path());
        let mut valgrind = Command::new("valgrind");
        valgrind.env(TASK, format!("{files} none {}", folder.path().display()));
        let program = std::env::current_exe().unwrap();
        Counted::Instructions.of(valgrind, &program, &ALONE)
    });
    let [few, many] = counted;
    let ratio = many as f64 / few as f64;
    assert!(ratio < 10.5, "{few} and {many} instructions: {ratio:.2}");
}

/// Of a long history only what is needed to decide is held.
#[cfg(target_os = "linux")]
#[test]
fn pruning_takes_the_same_memory_however_long_the_history_is() {
    let folder = many_files::folder();
    in_a_process(1_000, "all", folder.path());
    let measure = |generations: u32| {
        many_files::lengthen_history(folder.path(), generations.into());
        let cost = in_a_process(1_000, "prune", folder.path());
        let [records, peak] = cost[..] else {
            panic!("{cost:?}")
        };
        assert_eq!(records, f64::from(generations - many_files::KEPT));
        peak
    };
    let (few, many) = (measure(15), measure(115));
    // Held, each of them takes 1 MiB: its bytes, and what they are read into.
    assert!(many < few + 10.0, "{few} MiB, with a hundred more {many}");
}
