//! Scanning reads what has changed, all of it, and nothing else.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use forebay_store::{ObjectDigest, Store, StoreError, Tree, TreeEntryKind};

struct Project {
    directory: tempfile::TempDir,
    store: Store,
}

impl Project {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        fs::create_dir(directory.path().join("project")).unwrap();
        Self { directory, store }
    }

    fn path(&self, relative: &str) -> std::path::PathBuf {
        self.directory.path().join("project").join(relative)
    }

    fn write(&self, relative: &str, bytes: &[u8]) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn scan(&self) -> Tree {
        self.scan_without(&|_, _| false).unwrap()
    }

    fn scan_without(&self, skip: &dyn Fn(&str, bool) -> bool) -> Result<Tree, StoreError> {
        self.store.scan(&self.path(""), skip)
    }
}

fn digest_of(tree: &Tree, path: &str) -> ObjectDigest {
    match tree.get(path).unwrap().kind {
        TreeEntryKind::File { digest, .. } => digest,
        TreeEntryKind::Symlink { .. } => panic!("{path} is a link"),
    }
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(time))
        .unwrap();
}

#[test]
fn entries_are_sorted_and_complete() {
    let project = Project::new();
    project.write("a/b", b"1");
    project.write("a.b", b"22");
    project.write("tool", b"#!");
    fs::set_permissions(project.path("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(project.path("empty")).unwrap();
    symlink("../nowhere", project.path("a/link")).unwrap();
    let tree = project.scan();
    let paths: Vec<_> = tree
        .entries
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    assert_eq!(paths, ["a.b", "a/b", "a/link", "tool"]);
    assert_eq!(tree.read_again, 3);
    assert_eq!(
        tree.get("a.b").unwrap().kind,
        TreeEntryKind::File {
            digest: ObjectDigest::of(b"22"),
            size: 2,
            executable: false
        }
    );
    assert_eq!(
        tree.get("a/link").unwrap().kind,
        TreeEntryKind::Symlink {
            target: "../nowhere".to_owned()
        }
    );
    assert!(matches!(
        tree.get("tool").unwrap().kind,
        TreeEntryKind::File {
            executable: true,
            ..
        }
    ));
    assert!(tree.get("empty").is_none());
}

#[test]
fn the_second_scan_reads_nothing() {
    let project = Project::new();
    for n in 0..200 {
        project.write(&format!("d{}/f{n}", n % 7), format!("{n}").as_bytes());
    }
    let first = project.scan();
    assert_eq!(first.read_again, 200);
    let second = project.scan();
    assert_eq!(second.read_again, 0);
    assert_eq!(second.entries, first.entries);
    assert_eq!(second.digest(), first.digest());
}

#[test]
fn an_edit_of_equal_size_with_the_old_time_is_seen() {
    let project = Project::new();
    project.write("f", b"old");
    let time = SystemTime::now() - Duration::from_secs(3600);
    set_modified(&project.path("f"), time);
    let first = project.scan();
    project.write("f", b"new");
    set_modified(&project.path("f"), time);
    let second = project.scan();
    assert_eq!(second.read_again, 1);
    assert_eq!(digest_of(&second, "f"), ObjectDigest::of(b"new"));
    assert_ne!(first.digest(), second.digest());
}

#[test]
fn a_time_in_the_future_is_read_every_time() {
    let project = Project::new();
    project.write("f", b"x");
    set_modified(
        &project.path("f"),
        SystemTime::now() + Duration::from_secs(3600),
    );
    let first = project.scan();
    let second = project.scan();
    assert_eq!(second.read_again, 1);
    assert_eq!(first.digest(), second.digest());
}

#[test]
fn a_touched_file_is_read_once_and_is_the_same() {
    let project = Project::new();
    project.write("f", b"x");
    let first = project.scan();
    set_modified(
        &project.path("f"),
        SystemTime::now() - Duration::from_secs(60),
    );
    fs::set_permissions(project.path("f"), fs::Permissions::from_mode(0o600)).unwrap();
    let second = project.scan();
    assert_eq!((second.read_again, second.digest()), (1, first.digest()));
    assert_eq!(project.scan().read_again, 0);
}

#[test]
fn scans_that_skip_differently_are_right_and_do_not_forget_each_other() {
    let project = Project::new();
    for name in ["a", "lib/x", "lib/y", "lib-z"] {
        project.write(name, name.as_bytes());
    }
    let all = project.scan();
    let skip_lib = |path: &str, is_directory: bool| is_directory && path == "lib";
    let some = project.scan_without(&skip_lib).unwrap();
    assert_eq!(some.read_again, 0);
    let paths: Vec<_> = some
        .entries
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    assert_eq!(paths, ["a", "lib-z"]);

    // A scan that writes its record while it skips: the rest stays known, and changes are seen.
    project.write("a", b"changed");
    assert_eq!(project.scan_without(&skip_lib).unwrap().read_again, 1);
    project.write("lib/x", b"LIB/X");
    let again = project.scan();
    assert_eq!(again.read_again, 1);
    assert_eq!(digest_of(&again, "lib/x"), ObjectDigest::of(b"LIB/X"));
    assert_eq!(digest_of(&again, "lib/y"), digest_of(&all, "lib/y"));
}

#[test]
fn what_cannot_be_part_of_a_tree_is_named_unless_skipped() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let project = Project::new();
    let socket = project.path("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(
        project.scan_without(&|_, _| false),
        Err(StoreError::SpecialFile { path, kind: "socket" }) if path.ends_with("sock")
    ));
    assert!(project.scan_without(&|path, _| path == "sock").is_ok());
    fs::remove_file(socket).unwrap();

    let bad = project.path("").join(OsStr::from_bytes(b"bad\xff"));
    fs::write(&bad, b"").unwrap();
    assert!(matches!(
        project.scan_without(&|_, _| false),
        Err(StoreError::NotUtf8 { path }) if path.file_name() == bad.file_name()
    ));
    assert!(
        project
            .scan_without(&|path, _| path == "bad\u{fffd}")
            .is_ok()
    );
    fs::remove_file(bad).unwrap();

    symlink(OsStr::from_bytes(b"\xff"), project.path("link")).unwrap();
    assert!(matches!(
        project.scan_without(&|_, _| false),
        Err(StoreError::NotUtf8 { path }) if path.ends_with("link")
    ));
    assert!(matches!(
        project.store.scan(&project.path("absent"), &|_, _| false),
        Err(StoreError::Io { path, .. }) if path.ends_with("absent")
    ));
}

#[test]
fn a_damaged_record_is_as_none() {
    let project = Project::new();
    project.write("f", b"x");
    let first = project.scan();
    let trees = project.store.root().join("trees");
    let record = fs::read_dir(trees).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&record).unwrap();
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 1;
        fs::write(&record, &bad).unwrap();
        let again = project.scan();
        assert_eq!((again.read_again, again.digest()), (1, first.digest()));
    }
    fs::write(&record, &good[..good.len() / 2]).unwrap();
    assert_eq!(project.scan().read_again, 1);
    assert_eq!(project.scan().read_again, 0);
}

#[test]
fn where_the_clock_was_set_back_every_file_is_read() {
    let project = Project::new();
    project.write("f", b"x");
    project.write("g", b"y");
    project.scan();
    // As a scan left it, in an hour that is still to come: behind header and directory.
    let trees = project.store.root().join("trees");
    let record = fs::read_dir(trees).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&record).unwrap();
    let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
    let time = 20 + length..28 + length;
    let seconds = i64::from_le_bytes(bytes[time.clone()].try_into().unwrap());
    bytes[time].copy_from_slice(&(seconds + 3600).to_le_bytes());
    let body = bytes.len() - 32;
    let digest = ObjectDigest::of(&bytes[..body]);
    bytes[body..].copy_from_slice(digest.as_bytes());
    fs::write(&record, bytes).unwrap();
    assert_eq!(project.scan().read_again, 2);
    assert_eq!(project.scan().read_again, 0);
}
