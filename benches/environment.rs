//! What an environment of many DAG files costs this machine: CPU seconds and the most memory,
//! for a deploy of all of them, an unchanged one, and one that changes ten. The bucket is a
//! directory in memory, so that everything that is counted is ours, hashing included.
//!
//! The targets: cost linear in the number of files, and less than 64 MiB for 10,000.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/fakes.rs"]
mod fakes;

use std::sync::Arc;

use fakes::fake_registry::FakeRegistry;
use fakes::world::{Machine, Wish, deploy, key, wish};
use forebay::bucket::DirectoryBucket;
use forebay::clock::SystemClock;
use forebay::environment::Environment;
use forebay::progress::Silent;

/// As long as a file of a workflow with five jobs.
const CONTENT: usize = 2_000;

fn set(files: usize, changed: usize) -> Wish {
    let content: &'static str = "#".repeat(CONTENT).leak();
    let other: &'static str = "!".repeat(CONTENT).leak();
    let dags: Vec<(&'static str, &'static str)> = (0..files)
        .map(|n| {
            let content = if n < changed { other } else { content };
            (&*format!("workflow_{n:05}").leak(), content)
        })
        .collect();
    wish("1.0", "one", &dags)
}

/// User and system time of this process, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
}

/// The most memory that was resident since [`forget_peak`], in MiB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap();
    kilobytes.parse::<f64>().unwrap() / 1024.0
}

fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let sizes: &[usize] = match std::env::args().any(|argument| argument == "--bench") {
        true => &[1_000, 2_000, 5_000, 10_000],
        false => &[20],
    };
    // One process a size: memory that was used once is not always given back.
    match std::env::var("FOREBAY_BENCH_FILES") {
        Ok(files) => measure(files.parse().unwrap()),
        Err(_) => {
            println!(
                "{:>7} {:>10} {:>8} {:>8}",
                "files", "deploy of", "CPU s", "MiB"
            );
            for files in sizes {
                let program = std::env::current_exe().unwrap();
                let mut command = std::process::Command::new(program);
                command.env("FOREBAY_BENCH_FILES", files.to_string());
                assert!(command.status().unwrap().success());
            }
        }
    }
}

fn measure(files: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let memory = std::path::Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    let registry = Arc::new(FakeRegistry::new(Arc::default()));
    let machine = Machine::new("bench");
    for (name, changed) in [("all", 0), ("none", 0), ("ten", 10)] {
        let wish = set(files, changed.min(files));
        let environment = Environment::new(
            key("hello", "dev"),
            Arc::new(DirectoryBucket::new(folder.path())),
            Arc::clone(&registry) as _,
            machine.store(),
            Arc::new(SystemClock),
            Arc::new(Silent),
            machine.options(),
        );
        forget_peak();
        let before = cpu();
        let applied = runtime.block_on(deploy(&environment, &wish)).unwrap();
        assert_eq!(applied.changed, name != "none");
        println!(
            "{files:>7} {name:>10} {:>8.2} {:>8.0}",
            cpu() - before,
            peak()
        );
    }
}
