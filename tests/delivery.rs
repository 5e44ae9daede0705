//! What is delivered: a program that says which commit it is, and needs nothing of the machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

#[path = "../build.rs"]
#[allow(dead_code)]
mod build_script;

fn run(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "Test")
            .env(format!("GIT_{who}_EMAIL"), "test@example.com")
            // In UTC it is the day before.
            .env(format!("GIT_{who}_DATE"), "2026-11-29T01:00:00+02:00");
    }
    let command = command.args(arguments).current_dir(directory);
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {printed}"
    );
    printed
}

#[test]
fn the_version_names_the_commit_and_its_day_in_utc() {
    let folder = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| run(folder.path(), "git", arguments);
    assert_eq!(build_script::of_git(folder.path()), None);
    git(&["init", "--quiet"]);
    git(&["commit", "--quiet", "--allow-empty", "--message", "one"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let expected = format!("{} 2026-11-28", &commit[..9]);
    assert_eq!(build_script::of_git(folder.path()), Some(expected));
    // Inside of somebody else's repository there is no commit of ours.
    let inside = folder.path().join("vendor/forebay");
    std::fs::create_dir_all(&inside).unwrap();
    assert_eq!(build_script::of_git(&inside), None);
    // A crate's archive.
    assert_eq!(build_script::of_archive(&inside), None);
    let note =
        r#"{"git": {"sha1": "0123456789abcdef0123456789abcdef01234567"}, "path_in_vcs": ""}"#;
    std::fs::write(inside.join(".cargo_vcs_info.json"), note).unwrap();
    let archived = build_script::of_archive(&inside);
    assert_eq!(archived.as_deref(), Some("012345678"));
}

#[test]
fn the_version_is_printed() {
    let printed = run(
        Path::new("."),
        env!("CARGO_BIN_EXE_forebay"),
        &["--version"],
    );
    let rest = printed.strip_prefix(concat!("forebay ", env!("CARGO_PKG_VERSION")));
    let rest = rest.unwrap_or_else(|| panic!("{printed}"));
    // A build for debugging names no commit.
    assert!(
        rest == "\n" || rest.starts_with(" (") && rest.ends_with(")\n"),
        "{printed}"
    );
}

#[test]
fn no_library_of_the_machine_is_needed_but_the_c_library() {
    let binary = env!("CARGO_BIN_EXE_forebay");
    let needed = run(Path::new("."), "readelf", &["--dynamic", "--wide", binary]);
    let libraries: Vec<&str> = (needed.lines())
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split_once('[')?.1.strip_suffix(']'))
        .collect();
    let known = [
        "libc.so",
        "libm.so",
        "libgcc_s.so",
        "libdl.so",
        "libpthread.so",
        "ld-linux",
    ];
    for library in &libraries {
        assert!(
            known.iter().any(|known| library.starts_with(known)),
            "{libraries:?}"
        );
    }
}

#[test]
fn there_is_one_tls_and_it_is_not_openssl() {
    let locked = include_str!("../Cargo.lock");
    for crate_name in [
        "openssl",
        "openssl-sys",
        "native-tls",
        "aws-lc-rs",
        "aws-lc-sys",
    ] {
        let line = format!("name = \"{crate_name}\"\n");
        assert!(!locked.contains(&line), "{crate_name} is in Cargo.lock");
    }
    assert!(locked.contains("name = \"rustls\"\n"));
}
