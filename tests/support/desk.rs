//! A person's folder with a project, and all that was seen there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use regex_lite::{Captures, Regex};

use super::forebay_support::{Machine, installed};
use super::terminal::{Seen, run, screen};

/// Of the same length on every machine: `/tmp/forebay-` and six letters.
const FOLDER: &str = "/home/user/projects";

/// Of the same length whatever the machine's name is.
const HOLDER: &str = "colleague@their-machine";

/// One person's folder.
pub(crate) struct Desk {
    root: tempfile::TempDir,
    machine: Machine,
    pub(crate) seen: Seen,
    text: String,
    holder: String,
    digests: BTreeMap<String, char>,
}

impl Desk {
    /// None outside CI, if no BigFlow is installed.
    pub(crate) fn new(seen: Seen) -> Option<Self> {
        let python = installed("FOREBAY_TEST_BIGFLOW_PYTHON")?;
        let root = tempfile::Builder::new()
            .prefix("forebay-")
            .tempdir_in("/tmp")
            .unwrap();
        for folder in ["home", "hello", "empty"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        let environment = python.parent().unwrap().parent().unwrap();
        std::os::unix::fs::symlink(environment, root.path().join("python")).unwrap();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let user = HOLDER.len().saturating_sub(host.trim().len() + 1).max(1);
        let user = "u".repeat(user);
        let machine = Machine::new()
            .with_python(root.path().join("python/bin/python"))
            .with_variable("HOME", root.path().join("home").to_str().unwrap())
            .with_variable("USER", &user)
            .with_variable("FOREBAY_ENGINE", "none");
        Some(Self {
            holder: format!("{user}@{}", host.trim()),
            root,
            machine,
            seen,
            text: String::new(),
            digests: BTreeMap::new(),
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Uses another Python from now on. False outside CI, if it is not installed.
    pub(crate) fn use_python(&mut self, name: &str) -> bool {
        let Some(python) = installed(name) else {
            return false;
        };
        let environment = python.parent().unwrap().parent().unwrap();
        let link = self.path("other-python");
        std::os::unix::fs::symlink(environment, &link).unwrap();
        let machine = std::mem::replace(&mut self.machine, Machine::new());
        self.machine = machine.with_python(link.join("bin/python"));
        true
    }

    /// Sets a variable for all commands to come.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let machine = std::mem::replace(&mut self.machine, Machine::new());
        self.machine = machine.with_variable(name, value);
    }

    /// What `forebay` says in the project to a program.
    pub(crate) fn json(&self, line: &str) -> serde_json::Value {
        self.machine
            .forebay_json(&self.path("hello"), line.split(' '))
    }

    /// Runs `git` in the project.
    pub(crate) fn git(&self, line: &str) {
        let who = [
            "-c",
            "user.name=Somebody",
            "-c",
            "user.email=somebody@example.com",
        ];
        let arguments = who.into_iter().chain(line.split(' '));
        self.machine.run(&self.path("hello"), "git", arguments);
    }

    /// Runs `forebay` in `folder`, and notes what was seen.
    pub(crate) fn at(&mut self, folder: &str, line: &str) {
        let arguments: Vec<&str> = line.split(' ').collect();
        let finished = run(&self.machine, &self.path(folder), self.seen, &arguments);
        let stdout = self.settled(&finished.stdout);
        let stderr = self.settled(&finished.stderr);
        let line = self.settled(line);
        let _ = writeln!(self.text, "$ forebay {line}");
        match self.seen {
            Seen::Pipe => {
                for line in stderr.lines() {
                    let _ = writeln!(self.text, "2> {line}");
                }
                self.text.push_str(&stdout);
            }
            Seen::Terminal(columns) => self.text.push_str(&screen(&stdout, columns)),
        }
        let _ = writeln!(self.text, "[{}]\n", finished.status);
    }

    /// The same in the project.
    pub(crate) fn forebay(&mut self, line: &str) {
        self.at("hello", line);
    }

    /// The live DAG file of a workflow.
    pub(crate) fn dag(&self, workflow: &str) -> PathBuf {
        let folder = self.path("hello/.local/composer/dags");
        let files = std::fs::read_dir(folder).unwrap();
        let mut files = files.map(|file| file.unwrap().path());
        let prefix = format!("{workflow}__");
        let is_searched = |file: &PathBuf| {
            let name = file.file_name().unwrap().to_string_lossy();
            name.starts_with(&prefix)
        };
        files.find(is_searched).unwrap()
    }

    /// Leaves what a deploy leaves that is killed when all of its files are written.
    pub(crate) fn break_off(&self, deploy: &str) {
        let path = self.path("hello/.local/composer/forebay/v1/hello/local/HEAD.json");
        let read = || -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
        };
        let mut head = read();
        self.json(deploy);
        let live = &read()["live"];
        head["applying"] = serde_json::json!({
            "generation": live["generation"],
            "record": live["record"],
            "direction": "forward",
            "holder": "somebody@another-machine",
            "lease_seconds": 7_200,
        });
        std::fs::write(&path, head.to_string()).unwrap();
    }

    /// What was seen since the last time.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// The text without what is different on each machine and day.
    fn settled(&mut self, text: &str) -> String {
        let text = text
            .replace(self.root.path().to_str().unwrap(), FOLDER)
            .replace(&self.holder, HOLDER);
        let digest = Regex::new(r"\b(t?)([0-9a-f]{12,64})\b").unwrap();
        let text = digest.replace_all(&text, |found: &Captures<'_>| {
            let known = self.digests.len();
            let sign = self.digests.entry(found[2][..12].to_owned());
            let sign = sign.or_insert_with(|| char::from(b"123456789abcdef"[known % 15]));
            format!("{}{}", &found[1], sign.to_string().repeat(found[2].len()))
        });
        let mut text = text.into_owned();
        for (pattern, usual) in [
            // A line may end in between.
            (
                r"\d{4}-\d\d-\d\d((?: at)?\s+)\d\d:\d\d\b",
                "2026-01-02${1}03:04",
            ),
            (r"\d{4}-\d\d-\d\dT\d\d:00:00", "2026-01-02T03:00:00"),
            (r"\d{4}_\d\d_\d\d_\d\d_00_00", "2026_01_02_03_00_00"),
            (
                r"release:[A-Za-z0-9+/]{43}=",
                "release:ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQ=",
            ),
            // Whether a file that was just written is read again is a matter of a moment.
            (r"\b\d+ read\b", "0 read"),
            // Records have times in them, which are not equally long.
            (r"report\.html \(\d\d\.\d kB\)", "report.html (50.0 kB)"),
            (r"brought \(\d\.\d kB\)", "brought (3.0 kB)"),
            (r"\b7[12]\d\d s more", "7200 s more"),
            (r"\b127\.0\.0\.1:\d{5}\b", "127.0.0.1:50000"),
        ] {
            let pattern = Regex::new(pattern).unwrap();
            text = pattern.replace_all(&text, usual).into_owned();
        }
        text
    }
}
