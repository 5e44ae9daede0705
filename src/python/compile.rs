//! Compiles sources to `.pyc` files in an interpreter of the right version, so that
//! their bytes are the same whichever machine, process or order they are made in.

use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use forebay_store::{ObjectDigest, Recipe, Store};
use serde::{Deserialize, Serialize};

use super::find::{facts_recipe, on_path};
use super::marshal;
use super::remember::{recall, remember};
use super::{Interpreter, PythonError};

const COMPILE_SCRIPT: &str = include_str!("scripts/compile.py");
/// See [`Fingerprint`].
const CORPUS: &str = include_str!("scripts/corpus.py");
/// The recipes' version: raise it when fingerprints of the same compilers change.
const RECIPE_VERSION: u32 = 1;
/// A `.pyc` file's bytes before its code: magic number, flags, the source's hash (PEP 552).
const HEADER: usize = 16;
/// No compiled module is longer than this many bytes.
const LONGEST: u32 = 1 << 30;

/// What a compiler is known by: the BLAKE3 digest of the bytecode that it makes of a source
/// with most of what the language has. Two machines whose interpreters have the same one
/// make the same bytecode; the digits of their versions need not agree.
pub type Fingerprint = ObjectDigest;

/// An interpreter that compiles, one source after another.
pub(crate) struct Compiler {
    executable: PathBuf,
    process: Child,
    input: Option<BufWriter<ChildStdin>>,
    output: BufReader<ChildStdout>,
    version: (u8, u8),
}

impl Compiler {
    /// Starts `executable`. Nothing of its surroundings counts: neither variables nor what
    /// is installed.
    pub(crate) fn start(executable: &Path) -> Result<Self, PythonError> {
        let failed = |what| run_error(executable, what);
        let mut command = Command::new(executable);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PYTHON") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .args(["-s", "-S", "-B", "-W", "ignore", "-c", COMPILE_SCRIPT])
            .current_dir("/")
            .env("PYTHONHASHSEED", "0")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed("starting it"))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(failed("starting it")(io::ErrorKind::BrokenPipe.into()));
        };
        let mut compiler = Self {
            executable: executable.to_owned(),
            process,
            input: Some(BufWriter::new(input)),
            output: BufReader::new(output),
            version: (0, 0),
        };
        let mut version = [0; 2];
        compiler
            .output
            .read_exact(&mut version)
            .map_err(failed("asking for its version"))?;
        compiler.version = version.into();
        Ok(compiler)
    }

    /// The `.pyc` file of `source`, which the image has at `path`; `None` for a source that is
    /// not one of this version's.
    pub(crate) fn compile(
        &mut self,
        path: &str,
        source: &[u8],
    ) -> Result<Option<Vec<u8>>, PythonError> {
        let failed = |error| run_error(&self.executable, "compiling")(error);
        let compiled =
            exchange(self.input.as_mut(), &mut self.output, path, source).map_err(failed)?;
        let Some((header, code)) = compiled.split_at_checked(HEADER) else {
            return Ok(None);
        };
        let code = marshal::canonical(code, self.version)
            .map_err(|error| failed(io::Error::other(format!("{path}: {error}"))))?;
        Ok(Some([header, &code].concat()))
    }

    fn fingerprint(&mut self) -> Result<Fingerprint, PythonError> {
        let compiled = self.compile("/corpus.py", CORPUS.as_bytes())?;
        Ok(ObjectDigest::of(&compiled.unwrap_or_default()))
    }
}

fn run_error(executable: &Path, what: &'static str) -> impl FnOnce(io::Error) -> PythonError {
    let executable = executable.to_owned();
    move |source| PythonError::Run {
        executable,
        what,
        source,
    }
}

/// Sends one source and waits for what it came to; empty if it does not compile.
fn exchange(
    input: Option<&mut BufWriter<ChildStdin>>,
    output: &mut BufReader<ChildStdout>,
    path: &str,
    source: &[u8],
) -> io::Result<Vec<u8>> {
    let input = input.ok_or(io::ErrorKind::BrokenPipe)?;
    for length in [path.len(), source.len()] {
        let length = u32::try_from(length).map_err(io::Error::other)?;
        input.write_all(&length.to_le_bytes())?;
    }
    input.write_all(path.as_bytes())?;
    input.write_all(source)?;
    input.flush()?;
    let mut length = [0; 4];
    output.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut compiled = Vec::new();
    output.take(length.into()).read_to_end(&mut compiled)?;
    if compiled.len() as u64 != u64::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(compiled)
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // The end of its input is the end of the process.
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

/// What is remembered about an executable.
#[derive(Serialize, Deserialize)]
struct Known {
    version: (u8, u8),
    fingerprint: Fingerprint,
}

/// Tells how `executable` compiles, without starting it if that is known.
fn known(executable: &Path, store: &Store) -> Result<Known, PythonError> {
    let inputs = (
        facts_recipe(executable)?.key().to_string(),
        ObjectDigest::of(COMPILE_SCRIPT.as_bytes()),
        ObjectDigest::of(CORPUS.as_bytes()),
    );
    let recipe = Recipe::new("python-compiler", RECIPE_VERSION, &inputs)?;
    if let Some(known) = recall(store, &recipe)? {
        return Ok(known);
    }
    let mut compiler = Compiler::start(executable)?;
    let known = Known {
        version: compiler.version,
        fingerprint: compiler.fingerprint()?,
    };
    let mut batch = store.begin()?;
    remember(&mut batch, &recipe, &known)?;
    batch.commit()?;
    Ok(known)
}

/// Finds an interpreter of `version` to compile with; with `wanted`, one that makes this
/// bytecode. The project's own comes first, then what is on `PATH`, then what pyenv and uv have
/// installed.
///
/// # Errors
/// The store. An interpreter that does not run is passed over.
pub fn find_compiler(
    version: (u8, u8),
    wanted: Option<&Fingerprint>,
    own: Option<&Interpreter>,
    store: &Store,
) -> Result<Option<(PathBuf, Fingerprint)>, PythonError> {
    for candidate in candidates(version, own) {
        let known = match known(&candidate, store) {
            Ok(known) => known,
            Err(PythonError::Store(error)) => return Err(error.into()),
            Err(_) => continue,
        };
        if known.version == version && wanted.is_none_or(|wanted| *wanted == known.fingerprint) {
            return Ok(Some((candidate, known.fingerprint)));
        }
    }
    Ok(None)
}

fn candidates((major, minor): (u8, u8), own: Option<&Interpreter>) -> Vec<PathBuf> {
    let name = format!("python{major}.{minor}");
    let mut candidates: Vec<PathBuf> = own
        .filter(|own| (own.version.major, own.version.minor) == (major, minor))
        .map(|own| own.executable.clone())
        .into_iter()
        .chain(on_path(Path::new(&name)))
        .chain(on_path(Path::new("python3")))
        .collect();
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = std::env::home_dir();
    let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let places = [
        (
            variable("PYENV_ROOT")
                .or(below_home(".pyenv"))
                .map(|root| root.join("versions")),
            format!("{major}.{minor}."),
        ),
        (
            variable("UV_PYTHON_INSTALL_DIR").or(below_home(".local/share/uv/python")),
            format!("cpython-{major}.{minor}."),
        ),
    ];
    for (place, prefix) in places {
        let Some(Ok(folders)) = place.map(std::fs::read_dir) else {
            continue;
        };
        let mut found: Vec<PathBuf> = folders
            .flatten()
            .filter(|folder| folder.file_name().to_string_lossy().starts_with(&prefix))
            .map(|folder| folder.path().join("bin").join(&name))
            .filter(|path| path.is_file())
            .collect();
        found.sort();
        candidates.extend(found);
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python() -> PathBuf {
        let store = tempfile::tempdir().unwrap();
        let store = Store::open(store.path()).unwrap();
        super::super::find(Some(Path::new("python3")), Path::new("/"), &store)
            .unwrap()
            .executable
    }

    #[test]
    fn the_order_of_sources_does_not_show() {
        let sources: Vec<String> = (0..20)
            .map(|n| format!("import json\n'a'; x{n} = 'a', 'b c', {{'x', 'y', {n}}}, '-'\ndef f(a, x{n}): return a in {{'q', 'r', '{n}'}}\n"))
            .collect();
        let compile = |order: &mut dyn Iterator<Item = usize>| {
            let mut compiler = Compiler::start(&python()).unwrap();
            let mut all: Vec<(usize, Vec<u8>)> = order
                .map(|n| {
                    (
                        n,
                        compiler
                            .compile(&format!("/x/{n}.py"), sources[n].as_bytes())
                            .unwrap()
                            .unwrap(),
                    )
                })
                .collect();
            all.sort();
            all
        };
        assert_eq!(compile(&mut (0..20)), compile(&mut (0..20).rev()));
    }

    #[test]
    fn what_does_not_compile_is_left_out() {
        let mut compiler = Compiler::start(&python()).unwrap();
        assert_eq!(compiler.compile("/a.py", b"print 'x'\n").unwrap(), None);
        let compiled = compiler.compile("/a.py", b"x = 1\n").unwrap().unwrap();
        // PEP 552: a hash, not to be checked.
        assert_eq!(compiled[4..8], [1, 0, 0, 0]);
    }

    #[test]
    fn python_itself_runs_what_was_made() {
        let directory = tempfile::tempdir().unwrap();
        let python = python();
        let mut compiler = Compiler::start(&python).unwrap();
        let compiled = compiler
            .compile("/image/corpus.py", CORPUS.as_bytes())
            .unwrap()
            .unwrap();
        let place = directory.path().join("module.pyc");
        std::fs::write(&place, compiled).unwrap();
        let script = "import sys, importlib.machinery as m; \
                      c = m.SourcelessFileLoader('module', sys.argv[1]).get_code('module'); \
                      s = open(sys.argv[2]).read(); \
                      same = lambda a, b: a.co_code == b.co_code and a.co_names == b.co_names and \
                        a.co_filename == b.co_filename and list(a.co_lines()) == list(b.co_lines()) and \
                        all(same(x, y) if hasattr(x, 'co_code') else repr(x) == repr(y) or (type(x) is frozenset and x == y) \
                        for x, y in zip(a.co_consts, b.co_consts)); \
                      assert same(c, compile(s, '/image/corpus.py', 'exec')); print(c.co_filename)";
        let corpus = directory.path().join("corpus.py");
        std::fs::write(&corpus, CORPUS).unwrap();
        let ran = Command::new(python)
            .args(["-c", script])
            .args([&place, &corpus])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&ran.stdout),
            "/image/corpus.py\n",
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }

    #[test]
    fn a_compiler_is_found_once_and_known_by_what_it_makes() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let own = super::super::find(Some(Path::new("python3")), Path::new("/"), &store).unwrap();
        let version = (own.version.major, own.version.minor);
        let (path, fingerprint) = find_compiler(version, None, Some(&own), &store)
            .unwrap()
            .unwrap();
        assert_eq!(path, own.executable);
        let again = find_compiler(version, Some(&fingerprint), Some(&own), &store).unwrap();
        assert_eq!(again.unwrap().0, path);
        let other = ObjectDigest::of(b"another compiler");
        assert_eq!(
            find_compiler(version, Some(&other), Some(&own), &store).unwrap(),
            None
        );
        assert_eq!(
            find_compiler((3, 99), None, Some(&own), &store).unwrap(),
            None
        );
    }
}
