//! A release: the next minor version as a git tag, as BigFlow's `release` makes it
//! (`bigflow/version.py` of BigFlow 1.11.3).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why there is no release. Nothing has changed, unless a variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// Git is not there.
    #[error("git cannot be started: {0}")]
    NoGit(#[source] std::io::Error),
    /// Git refused a step.
    #[error("{step} failed: {message}")]
    Git {
        /// What git was to do.
        step: String,
        /// Git's own words.
        message: String,
    },
    /// The latest tag has no version that could be followed.
    #[error("the latest tag is {tag:?}, which has no number: there is no next minor version")]
    NoVersion {
        /// The tag.
        tag: String,
    },
    /// The next version is tagged already, on a commit that is not contained in this one.
    #[error(
        "the latest tag that this commit contains is {latest}, and the next one, {tag}, is taken by another commit"
    )]
    Taken {
        /// The latest tag that the commit contains; none is `0.0`.
        latest: String,
        /// The next one.
        tag: String,
    },
    /// The tag could not be pushed, and was taken back.
    #[error("tag {tag} cannot be pushed to origin: {message}")]
    Push {
        /// The tag.
        tag: String,
        /// Git's own words.
        message: String,
    },
    /// There is no such file.
    #[error("there is no identity file {}", path.display())]
    NoIdentity {
        /// Where it was said to be.
        path: PathBuf,
    },
}

/// Tags HEAD with the minor version after the latest tag, and pushes the tag to origin. A tag that
/// cannot be pushed is taken back, so that the next try makes the same.
///
/// `identity` is an SSH key's file that is used instead of SSH's own choice.
pub fn release(directory: &Path, identity: Option<&Path>) -> Result<String, ReleaseError> {
    let git = Git { directory };
    let identity = identity
        .map(|path| match std::path::absolute(path) {
            Ok(path) if path.is_file() => Ok(path),
            _ => Err(ReleaseError::NoIdentity {
                path: path.to_owned(),
            }),
        })
        .transpose()?;
    let tags = git.run(
        "listing the tags",
        ["tag", "--sort=version:refname", "--merged"],
        &[],
    )?;
    let latest = tags.lines().last().unwrap_or("0.0");
    let tag = next_minor(latest).ok_or_else(|| ReleaseError::NoVersion {
        tag: latest.to_owned(),
    })?;
    let existing = git.run("looking for the tag", ["tag", "--list", &tag], &[])?;
    if !existing.trim().is_empty() {
        return Err(ReleaseError::Taken {
            latest: latest.to_owned(),
            tag,
        });
    }
    git.run("making the tag", ["tag", &tag], &[])?;
    let ssh = identity.map(|path| {
        let quoted = path.to_string_lossy().replace('\'', r"'\''");
        format!("ssh -i '{quoted}' -o IdentitiesOnly=yes")
    });
    let variables: Vec<_> = ssh
        .iter()
        .map(|ssh| ("GIT_SSH_COMMAND", ssh.as_str()))
        .collect();
    let reference = format!("refs/tags/{tag}");
    let push = git.run(
        "pushing",
        ["push", "origin", reference.as_str()],
        &variables,
    );
    match push {
        Ok(_) => Ok(tag),
        Err(ReleaseError::Git { message, .. }) => {
            git.run("taking the tag back", ["tag", "-d", &tag], &[])?;
            Err(ReleaseError::Push { tag, message })
        }
        Err(other) => Err(other),
    }
}

/// `v0.1.5-rc1` gives `v0.2`: prefix, major and minor version, the rest goes.
fn next_minor(tag: &str) -> Option<String> {
    let start = tag.find(|character: char| character.is_ascii_digit())?;
    let (prefix, version) = tag.split_at(start);
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (major, rest) = version.split_at(digits(version));
    let minor = rest
        .strip_prefix('.')
        .map_or("", |rest| &rest[..digits(rest)]);
    let minor = match minor {
        "" => 0,
        minor => minor.parse::<u64>().ok()?,
    };
    Some(format!("{prefix}{major}.{}", minor.checked_add(1)?))
}

struct Git<'a> {
    directory: &'a Path,
}

impl Git<'_> {
    fn run<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(
        &self,
        step: &str,
        arguments: I,
        variables: &[(&str, &str)],
    ) -> Result<String, ReleaseError> {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(self.directory)
            .envs(variables.iter().copied())
            .output()
            .map_err(ReleaseError::NoGit)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(ReleaseError::Git {
            step: step.to_owned(),
            message: without_empty_lines(&String::from_utf8_lossy(&output.stderr)),
        })
    }
}

fn without_empty_lines(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_minor_version_is_bigflows() {
        for (tag, next) in [
            ("0.0", "0.1"),
            ("0.1.0", "0.2"),
            ("v2.0-rc1", "v2.1"),
            ("release-3", "release-3.1"),
            ("1.x", "1.1"),
            ("1.09", "1.10"),
        ] {
            assert_eq!(next_minor(tag).as_deref(), Some(next), "{tag}");
        }
        assert_eq!(next_minor("foo"), None);
        assert_eq!(next_minor("1.99999999999999999999"), None);
    }

    struct Scene {
        directory: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let scene = Self {
                directory: tempfile::tempdir().unwrap(),
            };
            std::fs::create_dir(scene.work()).unwrap();
            scene.git(&["init", "-q"]);
            scene.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
            scene
        }

        fn work(&self) -> PathBuf {
            self.directory.path().join("work")
        }

        fn git(&self, arguments: &[&str]) -> String {
            let output = Command::new("git")
                .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
                .args(arguments)
                .current_dir(self.work())
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        }

        fn release(&self) -> Result<String, ReleaseError> {
            release(&self.work(), None)
        }
    }

    #[test]
    fn a_release_is_a_tag_here_and_at_origin() {
        let scene = Scene::new();
        assert!(matches!(scene.release(), Err(ReleaseError::Push { .. })));
        assert_eq!(scene.git(&["tag"]), "", "what was not pushed is taken back");

        let origin = scene.directory.path().join("origin");
        scene.git(&["init", "-q", "--bare", origin.to_str().unwrap()]);
        scene.git(&["remote", "add", "origin", origin.to_str().unwrap()]);
        assert_eq!(scene.release().unwrap(), "0.1");
        assert_eq!(scene.release().unwrap(), "0.2");
        for version in ["0.9", "0.10"] {
            scene.git(&["tag", version]);
        }
        assert_eq!(scene.release().unwrap(), "0.11", "numbers, not texts");
        let pushed = scene.git(&["ls-remote", "--tags", "origin"]);
        let pushed: Vec<_> = pushed
            .lines()
            .filter_map(|line| line.rsplit('/').next())
            .collect();
        assert_eq!(pushed, ["0.1", "0.11", "0.2"]);

        scene.git(&["checkout", "-q", "--orphan", "other"]);
        scene.git(&["commit", "-q", "--allow-empty", "-m", "unrelated"]);
        let error = scene.release().unwrap_err().to_string();
        assert!(error.contains("the next one, 0.1, is taken"), "{error}");
        scene.git(&["tag", "foo"]);
        assert!(matches!(
            scene.release(),
            Err(ReleaseError::NoVersion { .. })
        ));
        let missing = release(&scene.work(), Some(Path::new("/nowhere/key")));
        assert!(matches!(missing, Err(ReleaseError::NoIdentity { .. })));
    }

    #[test]
    fn outside_a_repository_git_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let error = release(directory.path(), None).unwrap_err().to_string();
        assert!(error.contains("not a git repository"), "{error}");
    }
}
