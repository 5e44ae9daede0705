//! What layers cost: those of a folder of wheels beside gzip, buildah and umoci, and that of
//! a project of 1,000 files of which one changes.
//!
//! ```text
//! FOREBAY_BENCH_WHEELS=FOLDER cargo bench --bench image_layers
//! ```
//!
//! Every measured run is a process of its own: its processor seconds and its peak of memory
//! (`VmHWM`) are what the kernel says. Peers that are not installed are left out.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use forebay::image::{
    BaseImage, BuildContext, BuiltImage, Bytecode, ContainerSettings, ImagePlan, ImageRequest,
    ProjectSource, Step, build,
};
use forebay::progress::Silent;
use forebay::python::{Fingerprint, find_compiler};
use forebay::wheels::{LockedWheel, Platform, WheelSet};
use forebay_store::{Store, Tree};

const MODULES: usize = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [_, "layers", store, bytecode] => layers(Path::new(store), bytecode == &"bytecode"),
        [_, "project", store, folder, bytecode] => {
            project(Path::new(store), Path::new(folder), bytecode == &"bytecode");
        }
        _ => compare(),
    }
}

/// Processor seconds of this process (or of its ended children), and its peak of memory in MiB.
fn usage(children: bool) -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let at = if children { 13 } else { 11 };
    let ticks: f64 = fields[at..at + 2]
        .iter()
        .map(|t| t.parse::<f64>().unwrap())
        .sum();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kilobytes: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    (ticks / 100.0, kilobytes / 1024.0)
}

fn wheel_set(store: &Store, folder: &Path, without: Option<&str>) -> WheelSet {
    let mut batch = store.begin().unwrap();
    let mut wheels = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if without.is_some_and(|without| name.starts_with(without)) {
            continue;
        }
        let info = batch
            .put_reader(&mut std::fs::File::open(&path).unwrap())
            .unwrap();
        wheels.push(LockedWheel {
            file_name: name.parse().unwrap(),
            object: info.digest,
            sha256: info.sha256,
            size: info.size,
        });
    }
    batch.commit().unwrap();
    WheelSet::new(wheels).unwrap()
}

/// Builds an image of one step.
fn image(
    store: &Store,
    step: Step,
    wheels: &WheelSet,
    folder: &Path,
    tree: &Tree,
    bytecode: Option<Fingerprint>,
    packages: &[String],
) -> BuiltImage {
    let base = BaseImage::scratch(3, 11, Platform::LinuxAmd64);
    let plan = ImagePlan {
        lines: Vec::new(),
        steps: vec![step],
        requirement_files: Vec::new(),
        constraint_files: Vec::new(),
        requirement_lines: Vec::new(),
        settings: ContainerSettings::default(),
    };
    let none = BTreeMap::new();
    let project = ProjectSource {
        name: "project",
        version: None,
        packages,
        resources_directory: "resources",
        requirements_file: "resources/requirements.txt",
        requires: None,
        deployment_config_file: "deployment_config.py",
        docker_repository: None,
        test_framework: "unittest",
        export_image_tar: false,
        data_files: &[],
        metadata: &none,
        setuptools: &none,
    };
    let interpreter = || {
        Ok(find_compiler((3, 11), bytecode.as_ref(), None, store)?
            .unwrap()
            .0)
    };
    let request = ImageRequest {
        plan: &plan,
        base: &base,
        wheels,
        context: BuildContext {
            directory: folder,
            tree,
        },
        project: &project,
        project_wheel: None,
        container_layers: &[],
        published: None,
        compression: forebay::project::CompressionSetting::Splice,
        bytecode: bytecode.map(|fingerprint| Bytecode {
            version: (3, 11),
            fingerprint,
            interpreter: &interpreter,
        }),
        labels: &BTreeMap::new(),
        created: None,
    };
    build(&request, store, &Silent).unwrap()
}

fn compiler(store: &Store, wanted: bool) -> Option<Fingerprint> {
    wanted.then(|| {
        find_compiler((3, 11), None, None, store)
            .unwrap()
            .expect("a Python 3.11")
            .1
    })
}

fn layers(store: &Path, bytecode: bool) {
    let folder = std::env::var("FOREBAY_BENCH_WHEELS").unwrap();
    let store = Store::open(store).unwrap();
    // The wheels are in the store: only names are looked up here.
    let set: WheelSet =
        serde_json::from_slice(&std::fs::read(store.root().join("set.json")).unwrap()).unwrap();
    let tree = Tree {
        entries: Vec::new(),
        read_again: 0,
    };
    let compiler = compiler(&store, bytecode);
    let (before, _) = usage(false);
    let children = usage(true).0;
    let started = Instant::now();
    let image = image(
        &store,
        Step::Wheels,
        &set,
        Path::new(&folder),
        &tree,
        compiler,
        &[],
    );
    let elapsed = started.elapsed().as_secs_f64();
    let (after, peak) = usage(false);
    let size: u64 = image
        .layers()
        .iter()
        .map(|layer| layer.descriptor.size)
        .sum();
    println!(
        "{:>8.2} {:>8.2} {:>8.1} {:>8.0} {:>8.1}  forebay, {} layers{}",
        after - before,
        usage(true).0 - children,
        elapsed,
        peak,
        size as f64 / 1e6,
        image.layers().len(),
        if bytecode { ", with .pyc" } else { "" },
    );
}

fn compare() {
    let Ok(wheels) = std::env::var("FOREBAY_BENCH_WHEELS") else {
        println!("FOREBAY_BENCH_WHEELS names no folder of wheels: only the project is measured");
        return projects();
    };
    let work = tempfile::tempdir().unwrap();
    println!(
        "{:>8} {:>8} {:>8} {:>8} {:>8}",
        "own CPU s", "children", "s", "MiB", "MB"
    );
    let this = std::env::current_exe().unwrap();
    let mut last = PathBuf::new();
    for bytecode in ["none", "bytecode"] {
        let place = work.path().join(bytecode);
        let store = Store::open(&place).unwrap();
        let set = wheel_set(&store, Path::new(&wheels), None);
        std::fs::write(place.join("set.json"), serde_json::to_vec(&set).unwrap()).unwrap();
        let status = Command::new(&this)
            .arg("layers")
            .arg(&place)
            .arg(bytecode)
            .status()
            .unwrap();
        assert!(status.success());
        last = place;
    }
    // One small distribution less: which bytes are new?
    let store = Arc::new(Store::open(&last).unwrap());
    let tree = Tree {
        entries: Vec::new(),
        read_again: 0,
    };
    let digests = |set: &WheelSet| -> BTreeMap<_, u64> {
        let image = image(
            &store,
            Step::Wheels,
            set,
            Path::new(&wheels),
            &tree,
            None,
            &[],
        );
        image
            .layers()
            .iter()
            .map(|layer| (layer.descriptor.digest, layer.descriptor.size))
            .collect()
    };
    let before = digests(&wheel_set(&store, Path::new(&wheels), Some("idna-")));
    let whole = wheel_set(&store, Path::new(&wheels), None);
    let after = digests(&whole);
    let new: u64 = after
        .iter()
        .filter(|(digest, _)| !before.contains_key(*digest))
        .map(|(_, size)| size)
        .sum();
    let all: u64 = after.values().sum();
    println!(
        "one small distribution more: {:.1} of {:.1} MB are new, {:.1} %",
        new as f64 / 1e6,
        all as f64 / 1e6,
        100.0 * new as f64 / all as f64
    );

    // The same files for the peers, and with compiled modules for a start.
    let root = work.path().join("root");
    let unpacked = |root: &Path, compiler: Option<Fingerprint>| {
        std::fs::create_dir(root).unwrap();
        let folder = Path::new(&wheels);
        let image = image(&store, Step::Wheels, &whole, folder, &tree, compiler, &[]);
        unpack(&image, &store, root);
    };
    unpacked(&root, None);
    let compiled = work.path().join("compiled");
    unpacked(&compiled, compiler(&store, true));
    starts(&root, &compiled, Path::new(&wheels), work.path());
    let layout = work.path().join("layout");
    let (root, layout) = (root.display(), layout.display());
    for (name, command) in [
        (
            "tar and gzip -1",
            format!("tar -C {root} -c . | gzip -1 | wc -c"),
        ),
        (
            "tar and gzip -6",
            format!("tar -C {root} -c . | gzip -6 | wc -c"),
        ),
        (
            "tar and pigz -6",
            format!("tar -C {root} -c . | pigz -6 | wc -c"),
        ),
        (
            "tar and zstd -3",
            format!("tar -C {root} -c . | zstd -q -3 -T2 | wc -c"),
        ),
        (
            "umoci insert",
            format!(
                "umoci init --layout {layout} && umoci new --image {layout}:x && umoci insert --image {layout}:x {root} / && du -sb {layout} | cut -f1"
            ),
        ),
        (
            "buildah from, copy, push",
            format!(
                "c=$(buildah --storage-driver vfs from scratch) && buildah --storage-driver vfs copy -q $c {root} / >/dev/null && i=$(buildah --storage-driver vfs commit -q $c) && buildah --storage-driver vfs push -q $i oci:{layout}2:x && buildah --storage-driver vfs rm $c >/dev/null && buildah --storage-driver vfs rmi $i >/dev/null; du -sb {layout}2 | cut -f1"
            ),
        ),
    ] {
        let (before, _) = usage(true);
        let started = Instant::now();
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        if !output.status.success() {
            println!(
                "{name} did not run: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            continue;
        }
        let size: f64 = String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .unwrap_or(0.0);
        println!(
            "{:>8} {:>8.2} {:>8.1} {:>8} {:>8.1}  {name}",
            "",
            usage(true).0 - before,
            started.elapsed().as_secs_f64(),
            "",
            size / 1e6
        );
    }
    projects();
}

fn unpack(image: &BuiltImage, store: &Arc<Store>, root: &Path) {
    for blob in &image.to_push(store, None, None).blobs {
        if blob.descriptor().media_type.as_str().ends_with("gzip") {
            let layer = flate2::read::MultiGzDecoder::new(blob.open().unwrap());
            tar::Archive::new(layer).unpack(root).unwrap();
        }
    }
}

/// What a pod's process pays before its work.
fn starts(plain: &Path, compiled: &Path, wheels: &Path, work: &Path) {
    const IMPORTS: &str = "import apache_beam, pandas, google.cloud.bigquery, bigflow";
    let python = "python3.11";
    let site = |root: &Path| root.join("usr/local/lib/python3.11/site-packages");
    let pip = work.join("pip");
    let files = std::fs::read_dir(wheels)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let installed = Command::new(python)
        .args([
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            "--disable-pip-version-check",
            "--root-user-action=ignore",
            "--target",
        ])
        .arg(&pip)
        .args(files)
        .status();
    assert!(installed.unwrap().success());
    let ways = [
        ("installed by pip", pip),
        ("forebay, with .pyc", site(compiled)),
        ("forebay, without", site(plain)),
    ];
    let mut seconds: [Vec<f64>; 3] = Default::default();
    // By turns, so that what else the machine does is the same for all.
    for _ in 0..7 {
        for ((_, site), seconds) in ways.iter().zip(&mut seconds) {
            let (before, _) = usage(true);
            let output = Command::new(python)
                .args(["-X", "importtime", "-c", IMPORTS])
                .env("PYTHONPATH", site)
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            seconds.push(usage(true).0 - before);
        }
    }
    let medians = seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    });
    for ((name, _), median) in ways.iter().zip(&medians) {
        println!("{median:>8.2} CPU s: `{IMPORTS}`, {name} (median of 7, by turns)");
    }
}

fn projects() {
    let this = std::env::current_exe().unwrap();
    for bytecode in ["none", "bytecode"] {
        let work = tempfile::tempdir().unwrap();
        let folder = work.path().join("project");
        for module in 0..MODULES {
            let path = folder.join(format!("app/part{:02}/module{module}.py", module / 50));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, source_of(module, 0)).unwrap();
        }
        let status = Command::new(&this)
            .arg("project")
            .arg(work.path().join("store"))
            .arg(&folder)
            .arg(bytecode)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

/// Some 2 kB of Python that differ with the module.
fn source_of(module: usize, version: usize) -> String {
    (0..12)
        .map(|n| format!("def function_{module}_{n}(value, other={version}):\n    \"\"\"Adds {n} to what it is given.\"\"\"\n    if value > other:\n        return [value + {n} * index for index in range({module})]\n    return None\n\n\n"))
        .collect()
}

fn project(store: &Path, folder: &Path, bytecode: bool) {
    let store = Store::open(store).unwrap();
    let compiler = compiler(&store, bytecode);
    let packages: Vec<String> = std::iter::once("app".to_owned())
        .chain((0..MODULES / 50).map(|n| format!("app.part{n:02}")))
        .collect();
    let mut version = 0;
    for what in [
        "first build",
        "one line changed",
        "one line changed",
        "one line changed",
        "nothing changed",
    ] {
        if what == "one line changed" {
            version += 1;
            std::fs::write(
                folder.join("app/part03/module151.py"),
                source_of(151, version),
            )
            .unwrap();
        }
        let started = Instant::now();
        let before = (usage(false).0, usage(true).0);
        let tree = store.scan(folder, &|_, _| false).unwrap();
        let scanned = started.elapsed().as_secs_f64();
        let image = image(
            &store,
            Step::Project,
            &WheelSet::default(),
            folder,
            &tree,
            compiler,
            &packages,
        );
        println!(
            "{what}{}: {:.1} ms, of them {:.1} ms the scan; {:.0} ms CPU, {:.0} ms of Python; layer of {} bytes",
            if bytecode { " (with .pyc)" } else { "" },
            started.elapsed().as_secs_f64() * 1e3,
            scanned * 1e3,
            (usage(false).0 - before.0) * 1e3,
            (usage(true).0 - before.1) * 1e3,
            image.layers()[0].descriptor.size,
        );
    }
}
