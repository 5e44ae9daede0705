//! The project's version, as BigFlow derives it from git, and the commit.
//!
//! See `bigflow/version.py` of BigFlow 1.11.3. A version is a label: untracked
//! files do not count, and nothing is ever keyed by it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::names::{InvalidName, Version};
use super::working_tree::WorkingTree;

/// Why git gives no version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// The nearest tag has no digit that a version could begin with.
    #[error("the git tag {tag:?} is no version: a version begins with a digit, for example 0.1.0")]
    InvalidTag {
        /// What git describes the commit with.
        tag: String,
    },
    /// Git does not want to read the repository.
    #[error("git refuses to read the repository of {}: {reason}", directory.display())]
    Refused {
        /// The project's folder.
        directory: PathBuf,
        /// Git's own words.
        reason: String,
    },
    /// The commit that was asked for is not in the repository.
    #[error("git knows no commit {commit:?}")]
    NoSuchCommit {
        /// What was asked for.
        commit: String,
    },
    /// The tag gives a version that cannot be an image's tag or stand in a DAG's id.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Temporary files could not be used.
    #[error("the state of the working tree cannot be described: {0}")]
    WorkingTree(#[from] std::io::Error),
}

/// Where the working tree stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitState {
    /// The commit's full hash.
    pub commit: String,
    /// Whether tracked files differ from the commit.
    pub dirty: bool,
}

/// Version and commit of the working tree.
pub(super) fn describe(directory: &Path) -> Result<WorkingTree, VersionError> {
    let commit = git_commit(directory);
    Ok(WorkingTree {
        version: version_of(directory, None, commit.as_ref().map(|commit| commit.dirty))?,
        commit,
    })
}

/// The commit of the working tree, or nothing without git or without a commit.
pub fn git_commit(directory: &Path) -> Option<GitState> {
    let git = Git { directory };
    Some(GitState {
        commit: git.run(["rev-parse", "--verify", "HEAD"])?,
        dirty: git.is_dirty(),
    })
}

/// The nearest ancestors of a commit, newest first, at most `limit`; none without git.
pub fn git_ancestors(directory: &Path, commit: &str, limit: usize) -> Vec<String> {
    let git = Git { directory };
    let limit = format!("--max-count={limit}");
    let listed = git.run([
        "rev-list",
        "--skip=1",
        &limit,
        "--end-of-options",
        commit,
        "--",
    ]);
    let listed = listed.unwrap_or_default();
    listed.lines().map(str::to_owned).collect()
}

/// The version in BigFlow's scheme, of the working tree or of `commit`.
///
/// Without git, or outside a repository, it is `0+BROKEN`.
///
/// # Errors
/// See [`VersionError`]. A repository that git refuses to read is an error: as a version, its
/// silence would take the place of the commit's.
pub fn git_version(directory: &Path, commit: Option<&str>) -> Result<Version, VersionError> {
    version_of(directory, commit, None)
}

/// `dirty`: whether tracked files differ from HEAD, where that is known.
fn version_of(
    directory: &Path,
    commit: Option<&str>,
    dirty: Option<bool>,
) -> Result<Version, VersionError> {
    let git = Git { directory };
    if git.run(["rev-parse", "--is-inside-work-tree"]).is_none() {
        git.complaint()?;
        return Ok("0+BROKEN".parse()?);
    }
    let revision = commit.unwrap_or("HEAD");
    if let Some(commit) = commit {
        let known = format!("{commit}^{{commit}}");
        if git
            .run([
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                &known,
            ])
            .is_none()
        {
            return Err(VersionError::NoSuchCommit {
                commit: commit.to_owned(),
            });
        }
    }
    let dirty = if revision == "HEAD" && dirty.unwrap_or_else(|| git.is_dirty()) {
        format!(".t{}", git.tree_of_tracked_files()?)
    } else {
        String::new()
    };
    let invalid = |tag: &str| VersionError::InvalidTag {
        tag: tag.to_owned(),
    };

    if dirty.is_empty()
        && let Some(tag) = git.run(["describe", "--exact-match", "--tags", revision])
    {
        return Ok(from_first_digit(&tag)
            .ok_or_else(|| invalid(&tag))?
            .parse()?);
    }
    if let Some(described) = git.run(["describe", "--abbrev=8", "--long", "--tags", revision]) {
        let version = from_description(&described).ok_or_else(|| invalid(&described))?;
        return Ok(format!("{version}{dirty}").parse()?);
    }
    if let Some(hash) = git.run(["rev-parse", revision])
        && let Some(short) = hash.get(..12)
    {
        return Ok(format!("0+g{short}{dirty}").parse()?);
    }
    Ok(format!("0+BROKEN{dirty}").parse()?)
}

/// What follows a tag's prefix without digits: `v2.0-rc1` gives `2.0-rc1`.
fn from_first_digit(tag: &str) -> Option<&str> {
    tag.find(|character: char| character.is_ascii_digit())
        .map(|start| &tag[start..])
}

/// `v0.1.0-3-gb930751c` gives `0.1.0.dev3+gb930751c`.
fn from_description(described: &str) -> Option<String> {
    let (rest, hash) = described.rsplit_once('-')?;
    let (tag, distance) = rest.rsplit_once('-')?;
    Some(format!("{}.dev{distance}+{hash}", from_first_digit(tag)?))
}

struct Git<'a> {
    directory: &'a Path,
}

impl Git<'_> {
    /// What git prints, trimmed; nothing if it fails or is not there.
    fn run<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(&self, arguments: I) -> Option<String> {
        self.run_with(arguments, &[])
    }

    fn run_with<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(
        &self,
        arguments: I,
        variables: &[(&str, &Path)],
    ) -> Option<String> {
        let output = self
            .command()
            .args(arguments)
            .envs(variables.iter().copied())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    }

    /// A hook that runs us leaves variables that name its own repository.
    fn command(&self) -> Command {
        log::debug!("running git");
        let mut command = Command::new("git");
        command.current_dir(self.directory);
        for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
            command.env_remove(variable);
        }
        command
    }

    /// What git says against a repository that is there; nothing without repository or git.
    fn complaint(&self) -> Result<(), VersionError> {
        let has_repository = self
            .directory
            .ancestors()
            .any(|folder| folder.join(".git").exists());
        let output = self.command().args(["rev-parse", "--git-dir"]).output();
        match output {
            Ok(output) if has_repository && !output.status.success() => {
                let words = String::from_utf8_lossy(&output.stderr);
                let words = words.lines().next().unwrap_or("it gives no reason");
                Err(VersionError::Refused {
                    directory: self.directory.to_owned(),
                    reason: words.trim_start_matches("fatal: ").to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    fn is_dirty(&self) -> bool {
        self.run(["diff", "--shortstat", "HEAD"])
            .is_some_and(|statistics| !statistics.is_empty())
    }

    /// The first eight digits of the tree that a commit of all tracked files would have.
    ///
    /// Works on a copy of the index and writes the tree's objects to a temporary
    /// directory, so that the repository stays as it is.
    fn tree_of_tracked_files(&self) -> Result<String, VersionError> {
        let scratch = tempfile::tempdir()?;
        let git_path = |name| self.run(["rev-parse", "--git-path", name]);
        let tree = (|| {
            let index = self.directory.join(git_path("index")?);
            let objects = std::path::absolute(self.directory.join(git_path("objects")?)).ok()?;
            let copy = scratch.path().join("index");
            std::fs::copy(&index, &copy).ok()?;
            // By the index's time git knows which files may have changed unseen since.
            let modified = index.metadata().and_then(|index| index.modified()).ok()?;
            let file = std::fs::File::options().write(true).open(&copy).ok()?;
            file.set_modified(modified).ok()?;
            let variables = [
                ("GIT_INDEX_FILE", copy.as_path()),
                ("GIT_OBJECT_DIRECTORY", scratch.path()),
                ("GIT_ALTERNATE_OBJECT_DIRECTORIES", objects.as_path()),
            ];
            self.run_with(["add", "-u", ":/"], &variables)?;
            self.run_with(["write-tree"], &variables)
        })();
        tree.and_then(|tree| tree.get(..8).map(str::to_owned))
            .ok_or_else(|| {
                std::io::Error::other("git cannot write a tree of the tracked files").into()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(directory: &Path, arguments: &[&str]) {
        let status = Command::new("git")
            .args([
                "-c",
                "user.name=Test",
                "-c",
                "user.email=test@example.com",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(arguments)
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
    }

    #[test]
    fn versions_follow_bigflows_table() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let version = || git_version(path, None).unwrap().to_string();
        let write = |text: &str| std::fs::write(path.join("file"), text).unwrap();
        assert_eq!(version(), "0+BROKEN");
        assert_eq!(git_commit(path), None);

        git(path, &["init", "-q"]);
        assert_eq!(version(), "0+BROKEN", "a repository without a commit");
        write("1");
        git(path, &["add", "file"]);
        git(path, &["commit", "-qm", "first"]);
        let state = git_commit(path).unwrap();
        assert!(!state.dirty);
        assert_eq!(version(), format!("0+g{}", &state.commit[..12]));

        write("2");
        let dirty = version();
        let (start, tree) = dirty.split_once(".t").unwrap();
        assert_eq!(
            (start, tree.len()),
            (format!("0+g{}", &state.commit[..12]).as_str(), 8)
        );
        assert!(git_commit(path).unwrap().dirty);
        assert_eq!(version(), dirty, "asking changes nothing");

        git(path, &["checkout", "-q", "file"]);
        git(path, &["tag", "0.1.0"]);
        std::fs::write(path.join("untracked"), "").unwrap();
        assert_eq!(version(), "0.1.0", "untracked files do not count");
        write("3");
        assert!(version().starts_with(&format!("0.1.0.dev0+g{}.t", &state.commit[..8])));
        git(path, &["commit", "-qam", "second"]);
        let second = git_commit(path).unwrap().commit;
        assert_eq!(version(), format!("0.1.0.dev1+g{}", &second[..8]));
        assert_eq!(git_version(path, Some("0.1.0")).unwrap().as_str(), "0.1.0");
        assert!(matches!(
            git_version(path, Some("nope")),
            Err(VersionError::NoSuchCommit { .. })
        ));

        git(path, &["tag", "v2.0-rc1"]);
        assert_eq!(version(), "2.0-rc1");
        write("4");
        git(path, &["commit", "-qam", "third"]);
        git(path, &["tag", "foo"]);
        assert!(matches!(
            git_version(path, None),
            Err(VersionError::InvalidTag { .. })
        ));
    }

    #[test]
    fn a_repository_that_git_refuses_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".git"), "gitdir: nowhere\n").unwrap();
        assert!(matches!(
            git_version(directory.path(), None),
            Err(VersionError::Refused { .. })
        ));
    }
}
