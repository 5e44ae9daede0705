//! Says what `forebay --version` prints: the version, and in release builds the commit.
//!
//! Debug builds name no commit, because each new one would compile everything again.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=FOREBAY_COMMIT");
    let version = env!("CARGO_PKG_VERSION");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let commit = match std::env::var("PROFILE").as_deref() {
        Ok("release") => commit(directory),
        _ => None,
    };
    let version = match commit {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    };
    println!("cargo:rustc-env=FOREBAY_VERSION={version}");
}

/// `abc123def 2026-11-28`: what `FOREBAY_COMMIT` says, else git, else the note that cargo leaves in
/// a crate's archive. The date is the commit's, so that every build of it prints the same.
fn commit(directory: &Path) -> Option<String> {
    let said = std::env::var("FOREBAY_COMMIT").ok();
    said.filter(|commit| !commit.is_empty())
        .or_else(|| of_git(directory))
        .or_else(|| of_archive(directory))
}

/// The checked-out commit, if `directory` is a repository of its own: unpacked inside another one,
/// that one's commits say nothing about it.
pub(crate) fn of_git(directory: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .env("TZ", "UTC")
            .arg("-C")
            .arg(directory)
            .args(arguments)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != directory.canonicalize().ok()? {
        return None;
    }
    // What changes with the checked-out commit: HEAD, the branch that it names, and the file that
    // branches are packed into.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        let path = git(&["rev-parse", "--git-path", name])?;
        let path = directory.join(path);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    git(&[
        "log",
        "-1",
        "--abbrev=9",
        "--format=%h %cd",
        "--date=format-local:%Y-%m-%d",
    ])
}

/// `.cargo_vcs_info.json`, which has the commit and no date.
pub(crate) fn of_archive(directory: &Path) -> Option<String> {
    let text = std::fs::read_to_string(directory.join(".cargo_vcs_info.json")).ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    let commit = rest.split('"').nth(1)?;
    commit.get(..9).map(str::to_owned)
}
