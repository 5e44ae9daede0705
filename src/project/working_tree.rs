//! What git says about the working tree, remembered by everything that git looks at.
//!
//! A version needs some five processes of git's, which is more than all else that a build of
//! unchanged sources does. Git decides by `HEAD`, the tags, its configuration, the index,
//! and the state of every file in the index. While none of that changes, its answers are the
//! same. Repositories with anything out of the ordinary (submodules, a sparse or split
//! index, grafts, included configuration) always have git asked.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use forebay_store::{ObjectDigest, Recipe, Store};
use serde::{Deserialize, Serialize};

use super::git::{GitState, VersionError, describe};
use super::git_index::IndexPaths;
use super::names::Version;
use crate::python::{recall, remember};

/// The recipe's version: raise it when the same state means another answer.
const RECIPE_VERSION: u32 = 1;

/// A file that changed less than this before git was asked may change again without its times
/// telling: file systems count in ticks.
const TICK: Duration = Duration::from_millis(20);
/// The same where times have whole seconds.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// What git says about the working tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingTree {
    /// The version in BigFlow's scheme.
    pub version: Version,
    /// The commit, where there is one.
    pub commit: Option<GitState>,
}

impl WorkingTree {
    /// Asks git, unless the store knows what it would answer.
    pub fn of(directory: &Path, store: &Store) -> Result<Self, VersionError> {
        let asked = SystemTime::now();
        let Some(before) = Observed::of(directory) else {
            return describe(directory);
        };
        let before = match before {
            Observed::NoRepository => {
                return Ok(Self {
                    version: "0+BROKEN".parse()?,
                    commit: None,
                });
            }
            Observed::Repository(state) => state,
        };
        // Without the store's memory the answer is only slower.
        let recipe = Recipe::new("git-working-tree", RECIPE_VERSION, &before.inputs).ok();
        if let Some(recipe) = &recipe
            && let Ok(Some(known)) = recall(store, recipe)
        {
            return Ok(known);
        }
        let answer = describe(directory)?;
        let unchanged = matches!(
            Observed::of(directory),
            Some(Observed::Repository(after)) if after.inputs == before.inputs
        );
        if let Some(recipe) = recipe.filter(|_| unchanged && before.is_settled(asked)) {
            let _ = store.begin().and_then(|mut batch| {
                remember(&mut batch, &recipe, &answer)?;
                batch.commit()
            });
        }
        Ok(answer)
    }
}

/// What git would look at.
enum Observed {
    NoRepository,
    Repository(Box<State>),
}

struct State {
    inputs: Inputs,
    /// The latest time of a file that git judges by its times.
    youngest: SystemTime,
}

#[derive(PartialEq, Eq, Serialize)]
struct Inputs {
    root: PathBuf,
    head: Vec<u8>,
    /// The contents of files of git's own, by their paths.
    files: BTreeMap<PathBuf, Option<ObjectDigest>>,
    /// All files of the index with their modes, sizes, times and inodes.
    tracked: ObjectDigest,
    variables: BTreeMap<String, String>,
}

impl Observed {
    /// `None` if git must be asked.
    fn of(directory: &Path) -> Option<Self> {
        let variables = variables()?;
        let Some(root) = directory
            .ancestors()
            .find(|folder| folder.join(".git").symlink_metadata().is_ok())
        else {
            let bare =
                |folder: &Path| folder.join("HEAD").exists() && folder.join("objects").exists();
            return (!directory.ancestors().any(bare)).then_some(Self::NoRepository);
        };
        let git = git_directory(root)?;
        let common = match std::fs::read_to_string(git.join("commondir")) {
            Ok(path) => git.join(path.trim_end()),
            Err(_) => git.clone(),
        };
        for unusual in [
            "reftable",
            "info/grafts",
            "refs/replace",
            "info/sparse-checkout",
        ] {
            if common.join(unusual).exists() || git.join(unusual).exists() {
                return None;
            }
        }
        let mut files = BTreeMap::new();
        let mut note = |path: PathBuf| {
            let bytes = std::fs::read(&path).ok();
            files.insert(path, bytes.as_deref().map(ObjectDigest::of));
            bytes
        };
        for path in configurations(&git, &common) {
            if note(path).is_some_and(|text| is_unusual(&text)) {
                return None;
            }
        }
        let head = std::fs::read(git.join("HEAD")).ok()?;
        if let Some(branch) = std::str::from_utf8(&head).ok()?.strip_prefix("ref:") {
            note(common.join(branch.trim()));
        }
        note(common.join("packed-refs"));
        note(common.join("shallow"));
        for tag in walkdir::WalkDir::new(common.join("refs/tags")) {
            let Ok(tag) = tag else { continue };
            if !tag.file_type().is_dir() {
                note(tag.into_path());
            }
        }
        let index_path = git.join("index");
        let index = note(index_path.clone());
        let mut tracked = Tracked::new(root);
        if let Some(index) = &index {
            for path in IndexPaths::new(index)? {
                tracked.add(path?);
            }
            tracked.judge(&index_path.symlink_metadata().ok()?);
        }
        Some(Self::Repository(Box::new(State {
            inputs: Inputs {
                root: root.to_owned(),
                head,
                files,
                tracked: tracked.digest(),
                variables,
            },
            youngest: tracked.youngest,
        })))
    }
}

impl State {
    /// Whether every later change would show in a file's times.
    fn is_settled(&self, asked: SystemTime) -> bool {
        let age = asked.duration_since(self.youngest).unwrap_or_default();
        let since_epoch = self.youngest.duration_since(SystemTime::UNIX_EPOCH);
        let coarse = since_epoch.is_ok_and(|time| time.subsec_nanos() == 0);
        age > if coarse { COARSE_TICK } else { TICK }
    }
}

/// Git's own variables; `None` if one of them leads git elsewhere.
fn variables() -> Option<BTreeMap<String, String>> {
    const HARMLESS: [&str; 13] = [
        "GIT_AUTHOR_",
        "GIT_COMMITTER_",
        "GIT_SSH",
        "GIT_SSL_",
        "GIT_HTTP_",
        "GIT_PROXY_",
        "GIT_TRACE",
        "GIT_CURL_",
        "GIT_ASKPASS",
        "GIT_EDITOR",
        "GIT_PAGER",
        "GIT_TERMINAL_PROMPT",
        "GIT_CONFIG_NOSYSTEM",
    ];
    let mut variables = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if !name.starts_with("GIT_") {
            continue;
        }
        if !HARMLESS.iter().any(|harmless| name.starts_with(harmless)) {
            return None;
        }
        if name == "GIT_CONFIG_NOSYSTEM" {
            variables.insert(name.into_owned(), value.to_string_lossy().into_owned());
        }
    }
    Some(variables)
}

/// `.git`, or where the file `.git` of a worktree says that it is.
fn git_directory(root: &Path) -> Option<PathBuf> {
    let path = root.join(".git");
    if path.is_dir() {
        return Some(path);
    }
    let text = std::fs::read_to_string(&path).ok()?;
    Some(root.join(text.strip_prefix("gitdir:")?.trim()))
}

/// Where git reads settings and attributes from.
fn configurations(git: &Path, common: &Path) -> Vec<PathBuf> {
    let mut paths = vec![
        PathBuf::from("/etc/gitconfig"),
        common.join("config"),
        git.join("config.worktree"),
        common.join("info/attributes"),
    ];
    let home = std::env::home_dir();
    paths.extend(home.as_ref().map(|home| home.join(".gitconfig")));
    let settings = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.join(".config")));
    if let Some(settings) = settings {
        paths.extend(["config", "attributes"].map(|name| settings.join("git").join(name)));
    }
    paths
}

/// Whether settings lead to other files, or to formats that are not read here.
fn is_unusual(settings: &[u8]) -> bool {
    let settings = String::from_utf8_lossy(settings).to_ascii_lowercase();
    [
        "[include",
        "attributesfile",
        "worktree",
        "objectformat",
        "refstorage",
    ]
    .iter()
    .any(|word| settings.contains(word))
}

/// The states of the index's files.
struct Tracked<'a> {
    root: &'a Path,
    hasher: Vec<u8>,
    youngest: SystemTime,
}

impl<'a> Tracked<'a> {
    fn new(root: &'a Path) -> Self {
        Self {
            root,
            hasher: Vec::new(),
            youngest: SystemTime::UNIX_EPOCH,
        }
    }

    /// The index has the path's name; this is what is there now.
    fn add(&mut self, path: &[u8]) {
        let file = self.root.join(std::ffi::OsStr::from_bytes(path));
        let Ok(metadata) = file.symlink_metadata() else {
            self.hasher.push(0);
            return;
        };
        self.hasher.push(1);
        for number in [
            i128::from(metadata.mode()),
            i128::from(metadata.size()),
            i128::from(metadata.ino()),
            i128::from(metadata.dev()),
            i128::from(metadata.mtime()),
            i128::from(metadata.mtime_nsec()),
            i128::from(metadata.ctime()),
            i128::from(metadata.ctime_nsec()),
        ] {
            self.hasher.extend_from_slice(&number.to_le_bytes());
        }
        self.judge(&metadata);
    }

    fn judge(&mut self, metadata: &std::fs::Metadata) {
        let times = [
            (metadata.mtime(), metadata.mtime_nsec()),
            (metadata.ctime(), metadata.ctime_nsec()),
        ];
        for (seconds, nanoseconds) in times {
            let seconds = u64::try_from(seconds).unwrap_or_default();
            let nanoseconds = u32::try_from(nanoseconds).unwrap_or_default();
            let time = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds));
            self.youngest = self.youngest.max(time.unwrap_or(self.youngest));
        }
    }

    fn digest(&self) -> ObjectDigest {
        ObjectDigest::of(&self.hasher)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    struct Repository {
        directory: tempfile::TempDir,
        store: Store,
    }

    impl Repository {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(&directory.path().join("store")).unwrap();
            std::fs::create_dir(directory.path().join("work")).unwrap();
            let repository = Self { directory, store };
            repository.git(&["init", "-q"]);
            repository.write("a/file", "1");
            repository.git(&["add", "a"]);
            repository.git(&["commit", "-qm", "first"]);
            repository
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("work")
        }

        fn git(&self, arguments: &[&str]) {
            let output = Command::new("git")
                .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
                .args(arguments)
                .current_dir(self.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        /// Makes every file of the index, and the index, look as if it had been there for long.
        /// A time of change cannot be set, so it is waited for.
        fn settle(&self) {
            loop {
                match Observed::of(&self.path()) {
                    Some(Observed::Repository(state)) if !state.is_settled(SystemTime::now()) => {
                        std::thread::yield_now();
                    }
                    _ => return,
                }
            }
        }

        fn recipe(&self) -> Option<Recipe> {
            match Observed::of(&self.path())? {
                Observed::NoRepository => None,
                Observed::Repository(state) => {
                    Recipe::new("git-working-tree", RECIPE_VERSION, &state.inputs).ok()
                }
            }
        }

        fn is_remembered(&self) -> bool {
            let recipe = self.recipe().unwrap();
            recall::<WorkingTree>(&self.store, &recipe)
                .unwrap()
                .is_some()
        }

        /// Asks, and compares with git.
        fn ask(&self) -> String {
            self.settle();
            let answer = WorkingTree::of(&self.path(), &self.store).unwrap();
            assert_eq!(answer, describe(&self.path()).unwrap());
            answer.version.to_string()
        }
    }

    #[test]
    fn an_answer_holds_until_something_changes_that_git_looks_at() {
        let repository = Repository::new();
        assert!(!repository.is_remembered());
        let first = repository.ask();
        assert!(repository.is_remembered());
        assert_eq!(repository.ask(), first);

        repository.write("untracked", "");
        assert!(repository.is_remembered(), "it does not count");
        repository.write("a/file", "2");
        assert!(!repository.is_remembered());
        assert!(repository.ask().contains(".t"));
        repository.write("a/file", "3");
        assert!(!repository.is_remembered(), "another dirty state");
        repository.ask();
        repository.git(&["commit", "-qam", "second"]);
        assert!(!repository.is_remembered());
        repository.ask();
        repository.git(&["tag", "1.0"]);
        assert!(!repository.is_remembered());
        assert_eq!(repository.ask(), "1.0");
        repository.git(&["pack-refs", "--all"]);
        assert_eq!(repository.ask(), "1.0");
        std::fs::remove_file(repository.path().join("a/file")).unwrap();
        assert!(!repository.is_remembered());
        assert!(repository.ask().starts_with("1.0.dev0+g"));
    }

    #[test]
    fn what_is_unusual_is_asked_of_git_each_time() {
        let repository = Repository::new();
        assert!(repository.recipe().is_some());
        repository.git(&["update-index", "--skip-worktree", "a/file"]);
        assert!(repository.recipe().is_none());
        repository.git(&["update-index", "--no-skip-worktree", "a/file"]);
        assert!(repository.recipe().is_some());
        repository.git(&["update-index", "--split-index"]);
        assert!(repository.recipe().is_none());
        repository.git(&["update-index", "--no-split-index"]);
        repository.git(&["config", "include.path", "other"]);
        assert!(repository.recipe().is_none());
        repository.git(&["config", "--unset", "include.path"]);
        repository.git(&["update-index", "--index-version", "4"]);
        assert!(repository.recipe().is_none());
    }

    #[test]
    fn a_folder_without_git_needs_no_git() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let answer = WorkingTree::of(directory.path(), &store).unwrap();
        assert_eq!(answer.version.as_str(), "0+BROKEN");
        assert_eq!(answer, describe(directory.path()).unwrap());
    }

    #[test]
    fn a_worktree_and_a_subfolder_are_of_their_repository() {
        let repository = Repository::new();
        let second = repository.directory.path().join("second");
        repository.git(&["worktree", "add", "-q", second.to_str().unwrap()]);
        for place in [second, repository.path().join("a")] {
            let answer = WorkingTree::of(&place, &repository.store).unwrap();
            assert_eq!(answer, describe(&place).unwrap());
            assert!(matches!(
                Observed::of(&place),
                Some(Observed::Repository(_))
            ));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_index_makes_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let mut index = b"DIRC\x00\x00\x00\x02\x00\x00\x00\x05".to_vec();
            index.extend(bytes);
            if let Some(paths) = IndexPaths::new(&index) {
                assert!(paths.count() <= 5);
            }
        }
    }
}
