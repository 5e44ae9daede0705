//! What an environment of many DAG files costs: requests, CPU seconds and the most memory of a
//! process, for a deploy of all of them, an unchanged one, and one that changes ten. The bucket
//! is a directory in memory, so that all CPU that is counted is ours, hashing included.
//!
//! The targets: cost linear in the number of files, and less than 64 MiB for 10,000.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/fakes.rs"]
mod fakes;
#[path = "../tests/support/many_files.rs"]
mod many_files;

use std::path::Path;

use many_files::{DEPLOYS, folder, measure};

/// One process a deploy, as the program is run: what it is to do.
const TASK: &str = "FOREBAY_BENCH_TASK";

fn main() {
    if let Ok(task) = std::env::var(TASK) {
        let mut words = task.splitn(3, ' ');
        let files = words.next().unwrap().parse().unwrap();
        let name = words.next().unwrap();
        let cost = measure(files, name, Path::new(words.next().unwrap()));
        println!(
            "| {files} | {name} | {} | {} | {:.2} | {:.0} |",
            cost.reads, cost.writes, cost.cpu, cost.peak
        );
        return;
    }
    // `cargo test --benches` only wants to know that it runs.
    let sizes: &[usize] = match std::env::args().any(|argument| argument == "--bench") {
        true => &[1_000, 2_000, 5_000, 10_000],
        false => &[20],
    };
    println!("| files | deploy of | requests that read | that write | CPU s | peak MiB |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: |");
    for files in sizes {
        let folder = folder();
        for (name, _) in DEPLOYS {
            let program = std::env::current_exe().unwrap();
            let mut command = std::process::Command::new(program);
            command.env(TASK, format!("{files} {name} {}", folder.path().display()));
            assert!(command.status().unwrap().success());
        }
    }
}
