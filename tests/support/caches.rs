//! Machines that share nothing but a cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::forebay_support::{Finished, Machine, copy_folder, installed};

/// Wheels, and a Python with BigFlow, that all machines have alike.
pub(crate) struct Surroundings {
    python: PathBuf,
    pub(crate) directory: tempfile::TempDir,
}

/// A machine with a checkout of the project at a place of its own.
pub(crate) struct Site {
    pub(crate) project: PathBuf,
    pub(crate) store: PathBuf,
    machine: Machine,
    umask: &'static str,
    log: PathBuf,
}

/// Writes wheels without any tool: `thing-1.0-py3-none-any.whl` for `thing:10`, with so many
/// lines of 64 bytes.
const WRITE_WHEELS: &str = "
import base64, hashlib, sys, zipfile
for name, size in (wheel.split(':') for wheel in sys.argv[2:]):
    modules = {name + '.py': 'text = %r\\n' % ''.join(hashlib.sha256(b'%d' % n).hexdigest() for n in range(int(size)))}
    info = name + '-1.0.dist-info/'
    modules[info + 'METADATA'] = 'Metadata-Version: 2.1\\nName: %s\\nVersion: 1.0\\n' % name
    modules[info + 'WHEEL'] = 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'
    def line(path, text):
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()
        return '%s,sha256=%s,%d\\n' % (path, digest, len(text.encode()))
    record = ''.join(line(path, text) for path, text in modules.items())
    modules[info + 'RECORD'] = record + info + 'RECORD,,\\n'
    with zipfile.ZipFile('%s/%s-1.0-py3-none-any.whl' % (sys.argv[1], name), 'w', zipfile.ZIP_DEFLATED) as wheel:
        for path, text in modules.items():
            wheel.writestr(zipfile.ZipInfo(path, (2024, 1, 1, 0, 0, 0)), text)
";

impl Surroundings {
    /// With a small wheel `thing` and a bigger one, `bulk`. None where the Python of the tests
    /// is not installed.
    pub(crate) fn new() -> Option<Self> {
        Self::with_wheels(&["thing:10", "bulk:9000"])
    }

    /// The same with other wheels, each as `NAME:LINES`.
    pub(crate) fn with_wheels(names: &[&str]) -> Option<Self> {
        let python = installed("FOREBAY_TEST_BIGFLOW_PYTHON")?;
        let directory = tempfile::tempdir().unwrap();
        let wheels = directory.path().join("wheels");
        std::fs::create_dir(&wheels).unwrap();
        let wheels = wheels.to_str().unwrap();
        let arguments = [&["-c", WRITE_WHEELS, wheels], names].concat();
        Machine::new().run(directory.path(), &python, arguments);
        Some(Self { python, directory })
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    pub(crate) fn cache_url(&self) -> String {
        format!("file://{}", self.cache().display())
    }

    /// An empty machine with a checkout of the project.
    pub(crate) fn site(&self, name: &str, time_zone: &str, umask: &'static str) -> Site {
        let place = self.directory.path().join(name);
        let project = place.join(format!("checkout-of-{name}"));
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
        std::fs::create_dir_all(&place).unwrap();
        copy_folder(&example, &project);
        let requirements = project.join("resources/requirements.txt");
        std::fs::write(requirements, "bulk==1.0\nthing==1.0\n").unwrap();
        // Python imports this module at every start.
        let (hook, log) = (self.directory.path().join("hook"), place.join("starts"));
        std::fs::create_dir_all(&hook).unwrap();
        let text = "import os, sys\nopen(os.environ['STARTS'], 'a').write(' '.join(map(str, getattr(sys, 'orig_argv', []))) + '\\n')\n";
        std::fs::write(hook.join("sitecustomize.py"), text).unwrap();
        let machine = Machine::new()
            .with_python(&self.python)
            .with_variable("FOREBAY_STORE", place.join("store").to_str().unwrap())
            .with_variable("PYTHONPATH", hook.to_str().unwrap())
            .with_variable("STARTS", log.to_str().unwrap())
            .with_variable("PIP_NO_INDEX", "1")
            .with_variable(
                "PIP_FIND_LINKS",
                self.directory.path().join("wheels").to_str().unwrap(),
            )
            .with_variable("TZ", time_zone);
        Site {
            store: place.join("store"),
            project,
            machine,
            umask,
            log,
        }
    }
}

impl Site {
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.machine = self.machine.with_variable(name, value);
        self
    }

    /// A command of this machine, in the project.
    pub(crate) fn command(&self, program: &str) -> std::process::Command {
        self.machine.command(program, &self.project)
    }

    /// The project's Python.
    pub(crate) fn python(&self) -> &Path {
        self.machine.python().unwrap()
    }

    /// Runs the program with the machine's umask.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        let script = format!("umask {}; exec \"$@\"", self.umask);
        let mut command = self.machine.command("sh", &self.project);
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_forebay")]);
        command.arg("--python").arg(self.python());
        Finished::from(command.args(arguments).output().unwrap())
    }

    /// Runs a script in the checkout, as a CI service would: the program is on PATH, and the
    /// virtual environment is active.
    pub(crate) fn shell(&self, script: &str, variables: &BTreeMap<String, String>) -> Finished {
        let programs = self.project.parent().unwrap().join("programs");
        if !programs.exists() {
            std::fs::create_dir(&programs).unwrap();
            let program = env!("CARGO_BIN_EXE_forebay");
            std::os::unix::fs::symlink(program, programs.join("forebay")).unwrap();
        }
        let python = self.machine.python().unwrap();
        let folders = [programs, python.parent().unwrap().to_owned()].into_iter();
        let path = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).unwrap();
        let mut command = self.machine.command("bash", &self.project);
        command
            .args(["-euo", "pipefail", "-c", script])
            .env("PATH", path)
            .env("VIRTUAL_ENV", python.parent().unwrap().parent().unwrap())
            .envs(variables);
        Finished::from(command.output().unwrap())
    }

    /// Makes a key; gives the public half and the file of the private one.
    pub(crate) fn keygen(&self, domain: &str) -> (String, String) {
        let file = self.project.parent().unwrap().join(format!("{domain}.key"));
        let file = file.to_str().unwrap().to_owned();
        let finished = self.run(&["cache", "keygen", &file, "--domain", domain, "--json"]);
        assert_eq!(finished.status, 0, "{}", finished.stderr);
        let document: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        let secret = std::fs::read_to_string(&file).unwrap();
        let secret = secret.trim().rsplit(':').next().unwrap();
        assert!(!finished.stdout.contains(secret) && !finished.stderr.contains(secret));
        (document["trusted_key"].as_str().unwrap().to_owned(), file)
    }

    /// Builds image and DAG files; gives what `--json` says, and what was said beside.
    pub(crate) fn build(&self, arguments: &[&str]) -> (serde_json::Value, String) {
        let fixed = ["build", "-c", "local", "-t", "2026-01-01", "--json"];
        let finished = self.run(&[&fixed, arguments].concat());
        assert_eq!(finished.status, 0, "{}", finished.stderr);
        let mut document: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        // Its folder is the checkout's.
        if let Some(wheel) = document["wheel"].as_str() {
            let name = wheel.rsplit('/').next().unwrap_or(wheel);
            document["wheel"] = name.into();
        }
        (document, finished.stderr)
    }

    /// The command lines of every Python that was started here.
    pub(crate) fn starts(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

/// The requests that the program says it made.
pub(crate) fn requests(said: &str) -> u64 {
    let line = said
        .lines()
        .find(|line| line.contains("Cache "))
        .unwrap_or_default();
    let number = line.split(", ").find(|part| part.contains(" request"));
    number
        .and_then(|part| part.split(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no requests in {said}"))
}
