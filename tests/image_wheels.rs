//! Requirements become wheels through the real pip, once.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use std::path::{Path, PathBuf};
use std::process::Command;

use forebay::progress::Silent;
use forebay::wheels::{
    Platform, ResolveRequest, TargetPython, WheelError, WheelSet, lay_out, resolve,
};
use forebay_store::Store;
use forebay_support::installed;

/// A Python on this machine, as `src/python` would describe it.
struct Host {
    executable: PathBuf,
    version: (u8, u8, u8),
    platform: String,
}

fn host() -> Host {
    let script = "import sys, sysconfig; v = sys.version_info; \
                  print(sys.executable, v[0], v[1], v[2], sysconfig.get_platform())";
    let output = Command::new("python3")
        .args(["-c", script])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |at: usize| words[at].parse().unwrap();
    Host {
        executable: words[0].into(),
        version: (number(1), number(2), number(3)),
        platform: words[4].to_owned(),
    }
}

fn target(host: &Host, platform: Platform) -> TargetPython {
    TargetPython {
        major: host.version.0,
        minor: host.version.1,
        platform,
    }
}

fn own_platform(host: &Host) -> Platform {
    match host.platform.as_str() {
        "linux-aarch64" => Platform::LinuxArm64,
        _ => Platform::LinuxAmd64,
    }
}

fn request<'a>(
    files: &'a [PathBuf],
    host: &'a Host,
    executable: &'a Path,
    target: &'a TargetPython,
) -> ResolveRequest<'a> {
    ResolveRequest {
        requirements: files,
        constraints: &[],
        lines: &[],
        directory: files[0].parent().unwrap(),
        target,
        executable,
        version: host.version,
        platform: &host.platform,
        locked: None,
        refresh: false,
    }
}

fn names(set: &WheelSet) -> Vec<String> {
    let names = set
        .wheels
        .iter()
        .map(|wheel| wheel.file_name.distribution());
    names.map(|name| name.to_string()).collect()
}

#[test]
fn requirements_are_resolved_once_and_can_be_imported() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let requirements = directory.path().join("requirements.txt");
    // docopt exists only as a source distribution: it is built.
    std::fs::write(&requirements, "-r more.txt\nsix==1.16.0  # pinned\n").unwrap();
    std::fs::write(directory.path().join("more.txt"), "docopt==0.6.2\n").unwrap();
    let files = [requirements];
    let host = host();
    let target = target(&host, own_platform(&host));

    let resolution = resolve(
        &request(&files, &host, &host.executable, &target),
        &store,
        &Silent,
    )
    .unwrap();
    let set = resolution.set.clone();
    assert_eq!(names(&set), ["docopt", "six"]);

    // No process can be started the second time: there is no such interpreter.
    let absent = Path::new("/nowhere/python3");
    let again = resolve(&request(&files, &host, absent, &target), &store, &Silent).unwrap();
    assert_eq!(resolution, again);

    // Another machine takes what was locked, although its requirements leave it open and its
    // index would give another six: the source of docopt, which is built, and that very wheel.
    let source = resolution.distributions[0].source.as_ref().unwrap();
    assert_eq!(source.file, "docopt-0.6.2.tar.gz");
    assert!(resolution.distributions[1].source.is_none());
    let other = tempfile::tempdir().unwrap();
    let open = other.path().join("requirements.txt");
    std::fs::write(&open, "six\ndocopt\n").unwrap();
    let open = [open];
    let store_of_other = Store::open(&other.path().join("store")).unwrap();
    let locked = ResolveRequest {
        locked: Some(&resolution.distributions),
        ..request(&open, &host, &host.executable, &target)
    };
    let taken = resolve(&locked, &store_of_other, &Silent).unwrap();
    assert_eq!(taken, resolution);
    let mut forged = resolution.distributions.clone();
    forged[1].sha256 = forebay_store::Sha256Digest::of(b"forged");
    let asked = ResolveRequest {
        locked: Some(&forged),
        ..locked
    };
    assert!(resolve(&asked, &store_of_other, &Silent).is_err());

    let packages = lay_out(&set, &store).unwrap();
    assert_eq!(packages, lay_out(&set, &store).unwrap());
    let imported = Command::new(&host.executable)
        .args([
            "-S",
            "-c",
            "import six, docopt; print(six.__version__, docopt.__version__)",
        ])
        .env("PYTHONPATH", &packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&imported.stdout).trim(),
        "1.16.0 0.6.2"
    );
}

#[test]
fn what_has_no_wheel_for_another_machine_is_built_if_it_fits_everywhere() {
    let Some(uv) = installed("FOREBAY_TEST_UV") else {
        return;
    };
    // uv alone, without the Python that it is installed beside.
    let programs = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(uv, programs.path().join("uv")).unwrap();
    let folders = std::env::var_os("PATH").unwrap();
    let folders = std::env::split_paths(&folders);
    let path = std::iter::once(programs.path().to_owned()).chain(folders);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "with_uv", "--ignored", "--nocapture"])
        .env("PATH", std::env::join_paths(path).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "run by the test above, with uv among its programs"]
fn with_uv() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let requirements = directory.path().join("requirements.txt");
    let host = host();
    let other = match own_platform(&host) {
        Platform::LinuxAmd64 => Platform::LinuxArm64,
        Platform::LinuxArm64 => Platform::LinuxAmd64,
    };
    let target = target(&host, other);
    let files = [requirements.clone()];
    let asked = request(&files, &host, &host.executable, &target);

    std::fs::write(
        &requirements,
        "docopt==0.6.2\nsix==1.16.0\nMarkupSafe==2.1.5\n",
    )
    .unwrap();
    let set = resolve(&asked, &store, &Silent).unwrap().set;
    assert_eq!(names(&set), ["docopt", "markupsafe", "six"]);
    assert!(set.wheels[1].file_name.platform().contains(other.machine()));

    // It has code in C.
    std::fs::write(&requirements, "docopt==0.6.2\ncrcmod==1.7\n").unwrap();
    match resolve(&asked, &store, &Silent) {
        Err(WheelError::NoWheel { distributions, .. }) => {
            assert_eq!(distributions, ["crcmod-1.7.tar.gz"]);
        }
        other => panic!("{other:?}"),
    }

    std::fs::write(&requirements, "six==1.16.0\n").unwrap();
    let set = resolve(&asked, &store, &Silent).unwrap().set;
    assert_eq!(names(&set), ["six"]);
}

#[test]
fn pips_own_words_are_kept_without_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let requirements = directory.path().join("requirements.txt");
    let text = "--index-url http://user:hunter2@127.0.0.1:9/simple\n--no-such-option\nsix\n";
    std::fs::write(&requirements, text).unwrap();
    let host = host();
    let target = target(&host, own_platform(&host));
    let files = [requirements];
    let asked = request(&files, &host, &host.executable, &target);
    let error = resolve(&asked, &store, &Silent).unwrap_err().to_string();
    assert!(error.contains("--no-such-option"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

/// Writes the wheel `thing-1.0-py3-none-any.whl` with one module that says `text`.
fn write_wheel(host: &Host, folder: &Path, text: &str) {
    let script = "import sys, zipfile, hashlib, base64\n\
        folder, text = sys.argv[1:]\n\
        info = 'thing-1.0.dist-info/'\n\
        files = {'thing.py': 'text = %r\\n' % text,\n\
            info + 'METADATA': 'Metadata-Version: 2.1\\nName: thing\\nVersion: 1.0\\n',\n\
            info + 'WHEEL': 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'}\n\
        digest = lambda t: base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()).decode().rstrip('=')\n\
        record = ['%s,sha256=%s,%d' % (n, digest(t), len(t)) for n, t in files.items()]\n\
        files[info + 'RECORD'] = '\\n'.join(record + [info + 'RECORD,,']) + '\\n'\n\
        with zipfile.ZipFile(folder + '/thing-1.0-py3-none-any.whl', 'w') as wheel:\n\
        \x20   for name, content in files.items(): wheel.writestr(name, content)\n";
    std::fs::create_dir_all(folder).unwrap();
    let status = Command::new(&host.executable)
        .args(["-c", script])
        .arg(folder)
        .arg(text)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_wheel_that_is_replaced_in_a_local_folder_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let requirements = directory.path().join("requirements.txt");
    std::fs::write(&requirements, "--no-index\n--find-links ./wh\nthing\n").unwrap();
    let host = host();
    let target = target(&host, own_platform(&host));
    let files = [requirements];
    let asked = request(&files, &host, &host.executable, &target);

    write_wheel(&host, &directory.path().join("wh"), "one");
    let resolution = resolve(&asked, &store, &Silent).unwrap();
    let first = resolution.set;
    assert_eq!(resolve(&asked, &store, &Silent).unwrap().set, first);
    // A machine that has the lock finds the same folder.
    let other = Store::open(&directory.path().join("other")).unwrap();
    let locked = ResolveRequest {
        locked: Some(&resolution.distributions),
        ..asked
    };
    assert_eq!(resolve(&locked, &other, &Silent).unwrap().set, first);
    write_wheel(&host, &directory.path().join("wh"), "another");
    let second = resolve(&asked, &store, &Silent).unwrap().set;
    assert_eq!(names(&second), ["thing"]);
    assert_ne!(second.digest(), first.digest());
}
