//! Processor time, time and memory of pushing one layer of 1 GB, beside skopeo, in one run
//! against the same registry (Debian's `docker-registry`). Both read the same OCI layout,
//! and both begin with empty caches. They take turns, so that a busy machine hinders both;
//! what is printed are medians, and the highest peak of memory.
//!
//! ```text
//! cargo bench --bench registry_push
//! ```
//!
//! `FOREBAY_BENCH_MEGABYTES` sets another size. Each push is a process of its own; its
//! processor time and its peak of memory are what the kernel says (`stat`, `VmHWM`).
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout)]

#[path = "../tests/support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "../tests/support/images.rs"]
#[allow(dead_code)]
mod images;
#[path = "../tests/support/large.rs"]
mod large;
#[path = "../tests/support/open.rs"]
#[allow(dead_code)]
mod open;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use docker_registry::DockerRegistry;
use forebay::oci::{BlobSource, Descriptor, ImageManifest, Tag};
use forebay::progress::Silent;
use forebay::registry::{ImageToPush, ManifestName, push};
use large::LargeBlob;

const ROUNDS: usize = 5;
/// The kernel's unit of processor time, the same on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, mode, layout, target] = &*arguments
        && mode == "push"
    {
        return runtime().block_on(push_layout(Path::new(layout), target));
    }
    let megabytes = std::env::var("FOREBAY_BENCH_MEGABYTES");
    let megabytes: u64 = megabytes.map_or(1_000, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    runtime().block_on(write_layout(&layout, megabytes * 1_000_000));
    println!("one layer of {megabytes} MB, medians of {ROUNDS} pushes by turns:");
    let peers = [
        ("forebay", forebay as fn(&Path, &str) -> Command),
        ("skopeo", skopeo),
    ];
    let mut costs = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for ((_, command), costs) in peers.iter().zip(&mut costs) {
            costs.push(measured(&layout, *command));
        }
    }
    for ((name, _), costs) in peers.iter().zip(&costs) {
        println!(
            "{name:8} {:5.2} CPU s, {:5.2} s, {:4} MiB",
            median(costs.iter().map(|cost| cost.processor)),
            median(costs.iter().map(|cost| cost.elapsed)),
            costs.iter().map(|cost| cost.peak).max().unwrap() / 1_024,
        );
    }
}

/// What one push took.
struct Cost {
    /// Seconds of processor time, in user and in system mode.
    processor: f64,
    /// Seconds from start to end.
    elapsed: f64,
    /// The most memory, in KiB.
    peak: u64,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn runtime() -> tokio::runtime::Runtime {
    // As the program makes it.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn forebay(layout: &Path, target: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("push").arg(layout).arg(target);
    command
}

fn skopeo(layout: &Path, target: &str) -> Command {
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet", "--dest-tls-verify=false"]);
    command.arg(format!("oci:{}:1", layout.display()));
    command.arg(format!("docker://{target}:1"));
    command
}

/// What one push to a new registry takes.
fn measured(layout: &Path, command: fn(&Path, &str) -> Command) -> Cost {
    let server = DockerRegistry::start().expect("docker-registry is needed");
    let home = tempfile::tempdir().unwrap();
    let mut command = command(layout, &format!("{}/project", server.address()));
    let began = Instant::now();
    let mut child = command.env("HOME", home.path()).spawn().unwrap();
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let mut peak = 0;
    // One that has ended still tells what it has used, until somebody waits for it.
    let mut has_ended = false;
    while !has_ended {
        std::thread::sleep(Duration::from_millis(2));
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        peak = peak.max(number.unwrap_or(0));
        has_ended = status.lines().any(|line| line.starts_with("State:\tZ"));
    }
    let cost = Cost {
        processor: processor_time(&process),
        elapsed: began.elapsed().as_secs_f64(),
        peak,
    };
    assert!(child.wait().unwrap().success());
    cost
}

/// The process's user and system time in seconds (`proc_pid_stat(5)`).
fn processor_time(process: &Path) -> f64 {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap();
    // The name in brackets may hold anything.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / TICKS_A_SECOND
}

async fn write_layout(layout: &Path, size: u64) {
    let layer: Arc<dyn BlobSource> = Arc::new(LargeBlob::new(1, size));
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.descriptor().digest]},
    });
    let image = images::image_with(vec![layer], &config);
    let registry = open::repository(&format!("oci:{}", layout.display()), Vec::new());
    let tag: Tag = "1".parse().unwrap();
    push(&*registry, &image, &[tag], None, &Silent)
        .await
        .unwrap();
}

/// A blob of the layout.
struct FileBlob {
    path: PathBuf,
    descriptor: Descriptor,
}

impl BlobSource for FileBlob {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn open(&self) -> std::io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(&self.path)?))
    }
}

async fn push_layout(layout: &Path, target: &str) {
    let source = open::repository(&format!("oci:{}", layout.display()), Vec::new());
    let tag: Tag = "1".parse().unwrap();
    let name = ManifestName::Tag(tag.clone());
    let manifest = source.manifest(&name).await.unwrap().unwrap();
    let parsed: ImageManifest = serde_json::from_slice(&manifest.bytes).unwrap();
    let blobs = parsed.layers.iter().chain([&parsed.config]);
    let blobs = blobs.map(|descriptor| {
        let digest = descriptor.digest.to_string().replace(':', "/");
        Arc::new(FileBlob {
            path: layout.join("blobs").join(digest),
            descriptor: descriptor.clone(),
        }) as Arc<dyn BlobSource>
    });
    let image = ImageToPush {
        manifest,
        blobs: blobs.collect(),
        parts: Vec::new(),
        mount_candidates: Vec::new(),
    };
    let registry = open::repository(target, Vec::new());
    push(&*registry, &image, &[tag], None, &Silent)
        .await
        .unwrap();
}
