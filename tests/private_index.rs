//! A private package index, however pip or uv is told of it; its login is nowhere left.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/small_project.rs"]
mod small_project;

use forebay_support::{Finished, Machine, installed};
use small_project::small_project;

const USER: &str = "reader";
const PASSWORD: &str = "hunter2-is-secret";

/// An index of static pages that asks for a login, with the only wheel `thing-1.0`.
const SERVER: &str = r#"
import base64, hashlib, http.server, io, sys, zipfile
user, password = sys.argv[1:]
wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
info = "thing-1.0.dist-info/"
files = {
    "thing.py": "text = 'thing'\n",
    info + "METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
    info + "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
def digest(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
record = [f"{name},sha256={digest(text)},{len(text)}" for name, text in files.items()]
files[info + "RECORD"] = "\n".join(record + [info + "RECORD,,"]) + "\n"
archive = io.BytesIO()
with zipfile.ZipFile(archive, "w") as wheel:
    for name, text in files.items():
        wheel.writestr(name, text)
name = "thing-1.0-py3-none-any.whl"
page = f'<a href="/files/{name}#sha256={hashlib.sha256(archive.getvalue()).hexdigest()}">{name}</a>'
served = {"/simple/thing/": ("text/html", page.encode()), f"/files/{name}": ("application/zip", archive.getvalue())}

class Index(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_HEAD(self):
        self.do_GET()
    def do_GET(self):
        status, (kind, body) = 404, ("text/plain", b"")
        if self.headers.get("Authorization") != wanted:
            status = 401
        elif self.path in served:
            status, (kind, body) = 200, served[self.path]
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
    def log_message(self, *arguments):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
print(server.server_port, flush=True)
server.serve_forever()
"#;

struct Index {
    server: Child,
    port: String,
}

impl Index {
    fn start() -> Self {
        let mut server = Command::new("/usr/bin/python3")
            .args(["-c", SERVER, USER, PASSWORD])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap())
            .read_line(&mut port)
            .unwrap();
        Self {
            server,
            port: port.trim().to_owned(),
        }
    }

    /// Its address, with what stands before the host.
    fn url(&self, login: &str) -> String {
        format!("http://{login}127.0.0.1:{}/simple/", self.port)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A machine on which nothing but this is said of indexes.
fn machine() -> Machine {
    Machine::new()
        .with_python("/usr/bin/python3")
        .without_variable("PIP_FIND_LINKS")
        .with_variable("NO_PROXY", "127.0.0.1")
        .with_variable("no_proxy", "127.0.0.1")
}

/// The same with uv on its path.
fn with_uv(machine: Machine) -> Option<Machine> {
    let uv = installed("FOREBAY_TEST_UV")?;
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", uv.parent().unwrap().display());
    Some(machine.with_variable("PATH", &path))
}

/// Locks the requirement `thing` for a project with these files; gives what was printed.
fn lock(machine: &Machine, files: &[(&str, &str)]) -> (tempfile::TempDir, Finished) {
    let project = tempfile::tempdir().unwrap();
    small_project(project.path());
    fs::write(project.path().join("resources/requirements.txt"), "thing\n").unwrap();
    for (path, text) in files {
        let path = project.path().join(path);
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, before + text).unwrap();
    }
    let arguments = ["image", "lock", "-c", "dev", "-v", "--json"];
    let finished = machine.forebay(project.path(), arguments);
    (project, finished)
}

/// No file below has the password, but for those that the user has written.
fn assert_not_kept(root: &Path, but: &[&str]) {
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap();
        if entry.file_type().is_file() && !but.contains(&name) {
            let bytes = fs::read(entry.path()).unwrap();
            let secret = PASSWORD.as_bytes();
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{}", entry.path().display());
        }
    }
}

fn assert_locked(machine: &Machine, files: &[(&'static str, &str)]) {
    let (project, finished) = lock(machine, files);
    assert_eq!(finished.status, 0, "{files:?}: {}", finished.stderr);
    let document: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(document["wheels"], 1);
    assert!(!finished.stderr.contains(PASSWORD), "{}", finished.stderr);
    let lock = fs::read_to_string(project.path().join("forebay.lock")).unwrap();
    assert!(lock.contains("thing-1.0-py3-none-any.whl"), "{lock}");
    let name = |path: &&'static str| path.rsplit('/').next().unwrap();
    let names: Vec<&str> = files.iter().map(|(path, _)| name(path)).collect();
    assert_not_kept(project.path(), &names);
    let home = machine.run(project.path(), "sh", ["-c", "echo $HOME"]);
    // uv keeps what it downloads, and pip too; neither is asked to keep a login.
    assert_not_kept(&Path::new(home.trim()).join(".local"), &[]);
}

#[test]
fn every_way_of_telling_of_an_index_is_understood() {
    let index = Index::start();
    let (open, login) = (index.url(""), index.url(&format!("{USER}:{PASSWORD}@")));
    let named = format!("[[index]]\nname = 'our-own'\nurl = '{open}'\ndefault = true\n");
    let section = named.replace("[[index]]", "\n[[tool.uv.index]]");
    let logged_in = || {
        machine()
            .with_variable("UV_INDEX_OUR_OWN_USERNAME", USER)
            .with_variable("UV_INDEX_OUR_OWN_PASSWORD", PASSWORD)
    };
    // uv's own files, with uv and for pip alone.
    assert_locked(&logged_in(), &[("uv.toml", &named)]);
    assert_locked(&logged_in(), &[("pyproject.toml", &section)]);
    let old = format!("[pip]\nindex-url = '{login}'\n");
    assert_locked(&machine(), &[("uv.toml", &old)]);
    if let Some(with_uv) = with_uv(logged_in()) {
        assert_locked(&with_uv, &[("uv.toml", &named)]);
        assert_locked(&with_uv, &[("pyproject.toml", &section)]);
    }
    // pip's own file and variables.
    let project = tempfile::tempdir().unwrap();
    let file = project.path().join("pip.conf");
    fs::write(&file, format!("[global]\nindex-url = {login}\n")).unwrap();
    let told = machine().with_variable("PIP_CONFIG_FILE", file.to_str().unwrap());
    assert_locked(&told, &[]);
    assert_locked(&machine().with_variable("PIP_INDEX_URL", &login), &[]);
    // A line of the requirements.
    let line = format!("--index-url {login}\n");
    assert_locked(&machine(), &[("resources/requirements.txt", &line)]);
}

#[test]
fn what_an_index_refuses_is_told_without_the_login() {
    let index = Index::start();
    let wrong = index.url(&format!("{USER}:wrong-{PASSWORD}@"));
    let (_project, finished) = lock(&machine().with_variable("PIP_INDEX_URL", &wrong), &[]);
    assert_eq!(finished.status, 1, "{}", finished.stderr);
    assert!(finished.stderr.contains("thing"), "{}", finished.stderr);
    assert!(!finished.stderr.contains(PASSWORD), "{}", finished.stderr);
}

#[test]
fn folders_of_uvs_configuration_are_looked_into() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine();
    machine.run(
        folder.path(),
        "/usr/bin/python3",
        [
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            "wheels",
            "six==1.16.0",
        ],
    );
    let wheels = folder.path().join("wheels");
    let text = format!("no-index = true\nfind-links = ['{}']\n", wheels.display());
    let project = tempfile::tempdir().unwrap();
    small_project(project.path());
    fs::write(project.path().join("uv.toml"), text).unwrap();
    fs::write(project.path().join("resources/requirements.txt"), "six\n").unwrap();
    let locked = machine.forebay_json(project.path(), ["image", "lock", "-c", "dev"]);
    assert_eq!(locked["wheels"], 1);
}
