//! The `.pyc` files of an image: without them every pod compiles its libraries
//! anew at every start.
//!
//! They are made by an interpreter of the image's version, and belong to the layer of
//! their sources. So which bytes they have must not depend on the machine: an image names
//! the compiler by its fingerprint, and what that compiler makes is kept for every wheel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, mpsc};

use forebay_store::{Batch, ObjectDigest, ObjectFile, Realisation, Recipe, RecipeKey, Store};
use serde::Serialize;

use super::ImageError;
use super::context::{BuildContext, ContextFile};
use super::file_layer::ENCODER;
use super::kept_modules::{CompiledModule, KeptModules, ModuleBytes};
use crate::python::{Compiler, Fingerprint, PythonError};
use crate::wheels::{Archive, ArchiveWriter, Content, InstallScheme, Installation, LockedWheel};

/// Changes whenever the same sources would give other bytes.
const RECIPE_VERSION: u32 = 1;
/// The output of a realisation that has the compiled files.
const ARCHIVE: &str = "bytecode";
/// Bytes that a source may have.
const MAX_SOURCE: u64 = 64 << 20;

/// Which compiler an image's `.pyc` files are of.
#[derive(Clone, Copy)]
pub struct Bytecode<'a> {
    /// The image's Python, for example (3, 11).
    pub version: (u8, u8),
    /// What the compiler is known by.
    pub fingerprint: Fingerprint,
    /// Finds an interpreter with this fingerprint; asked only if something must be compiled.
    pub interpreter: &'a (dyn Fn() -> Result<PathBuf, PythonError> + Sync),
}

impl fmt::Debug for Bytecode<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Bytecode({:?}, {})",
            self.version, self.fingerprint
        )
    }
}

/// A wheel that is to be installed.
pub(super) type PlannedWheel<'a> = (&'a LockedWheel, &'a Archive<ObjectFile>, &'a Installation);

impl Bytecode<'_> {
    /// Where Python looks for the compiled form of the source at `path` (PEP 3147).
    fn place(&self, path: &str) -> Option<String> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let module = name.strip_suffix(".py")?;
        let (major, minor) = self.version;
        Some(format!(
            "{directory}/__pycache__/{module}.cpython-{major}{minor}.pyc"
        ))
    }

    fn start(&self) -> Result<Compiler, ImageError> {
        Ok(Compiler::start(&(self.interpreter)()?)?)
    }

    fn key(&self, wheel: &LockedWheel, scheme: &InstallScheme) -> Result<RecipeKey, ImageError> {
        #[derive(Serialize)]
        struct Inputs<'a> {
            compiler: String,
            encoder: &'a str,
            wheel: String,
            purelib: &'a str,
            platlib: &'a str,
        }
        let inputs = Inputs {
            compiler: self.fingerprint.to_string(),
            encoder: ENCODER,
            wheel: wheel.object.to_string(),
            purelib: &scheme.purelib,
            platlib: &scheme.platlib,
        };
        Ok(Recipe::new("wheel-bytecode", RECIPE_VERSION, &inputs)?.key())
    }

    /// The compiled files of each wheel, as a zip archive in the store whose paths are those of
    /// the image. What was compiled before is only looked up; the rest is compiled on all processors.
    ///
    /// # Errors
    /// No interpreter, or the store.
    pub(super) fn of_wheels(
        &self,
        wheels: &[PlannedWheel<'_>],
        scheme: &InstallScheme,
        store: &Store,
    ) -> Result<BTreeMap<ObjectDigest, ObjectDigest>, ImageError> {
        let mut archives = BTreeMap::new();
        let mut missing = Vec::new();
        for &(wheel, archive, installation) in wheels {
            let key = self.key(wheel, scheme)?;
            let known = store.realisation(&key)?;
            match known.as_ref().and_then(|known| known.outputs.get(ARCHIVE)) {
                Some(known) => {
                    archives.insert(wheel.object, *known);
                }
                None => missing.push((wheel, archive, installation, key)),
            }
        }
        if missing.is_empty() {
            return Ok(archives);
        }
        // The large ones first, so that no processor is idle at the end.
        missing.sort_by_key(|(wheel, ..)| std::cmp::Reverse(wheel.size));
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let queue = Mutex::new(missing.iter());
        // A full channel makes the compilers wait: few archives are in memory at a time.
        let (sender, receiver) = mpsc::sync_channel(workers);
        let mut batch = store.begin()?;
        std::thread::scope(|scope| {
            for _ in 0..workers.min(missing.len()) {
                let (sender, queue) = (sender.clone(), &queue);
                scope.spawn(move || {
                    let mut compiler = None;
                    loop {
                        let next = queue.lock().ok().and_then(|mut queue| queue.next());
                        let Some((wheel, archive, installation, key)) = next else {
                            break;
                        };
                        let compiled =
                            self.compile_wheel(&mut compiler, archive, installation, scheme);
                        if sender.send((wheel, key, compiled)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            // Objects before the realisations that name them, all in one batch.
            for (wheel, key, compiled) in receiver {
                let object = batch.put(&compiled?)?.digest;
                let outputs = BTreeMap::from([(ARCHIVE.to_owned(), object)]);
                batch.realise(key, &Realisation { outputs })?;
                archives.insert(wheel.object, object);
            }
            Ok::<_, ImageError>(())
        })?;
        batch.commit()?;
        Ok(archives)
    }

    fn compile_wheel(
        &self,
        compiler: &mut Option<Compiler>,
        archive: &Archive<ObjectFile>,
        installation: &Installation,
        scheme: &InstallScheme,
    ) -> Result<Vec<u8>, ImageError> {
        let cannot_write = || ImageError::io("cannot keep compiled modules");
        let installed: BTreeSet<&str> =
            installation.files.iter().map(|f| f.path.as_str()).collect();
        let mut writer = ArchiveWriter::new(Vec::new(), 6);
        for file in &installation.files {
            let is_module = [&scheme.purelib, &scheme.platlib].iter().any(|site| {
                file.path
                    .strip_prefix(site.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
            });
            let Some(place) = self.place(&file.path).filter(|_| is_module) else {
                continue;
            };
            if installed.contains(place.as_str()) {
                continue;
            }
            let source = match &file.content {
                Content::Generated(bytes) => bytes.clone(),
                Content::Entry(index) => {
                    let Some(entry) = archive
                        .entries()
                        .get(*index)
                        .filter(|e| e.size <= MAX_SOURCE)
                    else {
                        continue;
                    };
                    archive.read(entry, MAX_SOURCE).map_err(|error| {
                        cannot_write()(std::io::Error::other(format!("{}: {error}", file.path)))
                    })?
                }
            };
            let compiler = match compiler {
                Some(compiler) => compiler,
                None => compiler.insert(self.start()?),
            };
            if let Some(compiled) = compiler.compile(&format!("/{}", file.path), &source)? {
                writer
                    .add(&place, &compiled, false)
                    .map_err(cannot_write())?;
            }
        }
        writer.finish().map_err(cannot_write())
    }

    /// The compiled form of each of `modules` (image path to source), by image path. What
    /// earlier builds of this project compiled is used again for sources that did not change.
    ///
    /// # Errors
    /// No interpreter, a file that changed since the scan, or the store.
    pub(super) fn of_project(
        &self,
        name: &str,
        modules: &BTreeMap<String, ContextFile>,
        context: &BuildContext<'_>,
        store: &Store,
        batch: &mut Batch<'_>,
    ) -> Result<BTreeMap<String, CompiledModule>, ImageError> {
        let inputs = (self.fingerprint.to_string(), name);
        let key = Recipe::new("project-bytecode", RECIPE_VERSION, &inputs)?.key();
        let kept = KeptModules::find(store, &key)?;
        let mut compiler = None;
        let mut places = BTreeMap::new();
        let mut all = BTreeMap::new();
        for (path, file) in modules {
            let Some(place) = self.place(path) else {
                continue;
            };
            // The path is compiled in, so it counts with the source.
            let known_as = format!("{}/{path}", file.digest);
            let bytes = match kept.module(&known_as) {
                Some(kept) => kept,
                None => {
                    let compiler = match &mut compiler {
                        Some(compiler) => compiler,
                        none => none.insert(self.start()?),
                    };
                    let source = context.read(file)?;
                    let bytes = compiler.compile(&format!("/{path}"), &source)?;
                    ModuleBytes::New(bytes.unwrap_or_default().into())
                }
            };
            let module = CompiledModule {
                name: ObjectDigest::of(format!("{} {known_as}", self.fingerprint).as_bytes()),
                bytes,
            };
            // What does not compile is remembered as nothing.
            if module.size() > 0 {
                places.insert(place, module.clone());
            }
            all.insert(known_as, module);
        }
        if compiler.is_some() {
            kept.replace(&all, &key, batch)?;
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::layer::Layer;
    use super::super::tests::{
        bytes_of, entries, gunzip, lock, new_store, parts, source, write, write_project,
    };
    use super::super::{project_layer, wheel_layers};
    use super::*;
    use crate::progress::Silent;
    use crate::python::find_compiler;
    use crate::wheels::WheelSet;
    use crate::wheels::testing::WheelBuilder;

    /// The machine's Python, and how often it was asked for.
    struct Machine {
        version: (u8, u8),
        executable: PathBuf,
        fingerprint: Fingerprint,
        asked: AtomicUsize,
    }

    impl Machine {
        fn new(store: &Store) -> Self {
            let place = std::path::Path::new("python3");
            let own = crate::python::find(Some(place), std::path::Path::new("/"), store).unwrap();
            let version = (own.version.major, own.version.minor);
            let found = find_compiler(version, None, Some(&own), store).unwrap();
            let (executable, fingerprint) = found.unwrap();
            Self {
                version,
                executable,
                fingerprint,
                asked: AtomicUsize::new(0),
            }
        }

        fn scheme(&self) -> InstallScheme {
            InstallScheme::under(
                "usr/local",
                self.version,
                "site-packages",
                "/usr/bin/python3",
            )
        }

        fn with<T>(&self, work: impl FnOnce(&Bytecode<'_>) -> T) -> T {
            let interpreter = || {
                self.asked.fetch_add(1, Ordering::Relaxed);
                Ok(self.executable.clone())
            };
            work(&Bytecode {
                version: self.version,
                fingerprint: self.fingerprint,
                interpreter: &interpreter,
            })
        }

        fn layers(&self, set: &WheelSet, store: &Arc<Store>) -> Vec<Layer> {
            let scheme = self.scheme();
            self.with(|bytecode| {
                wheel_layers::build(set, &scheme, Some(bytecode), store, &Silent).unwrap()
            })
        }
    }

    fn wheels() -> [WheelBuilder; 2] {
        let one = WheelBuilder::new("one")
            .file("one/__init__.py", b"from .deep import value\n")
            .file("one/deep/__init__.py", b"value = 'a b', __file__\n")
            .file("one/old.py", b"print 'Python 2'\n")
            .file("one/data.txt", b"text");
        let two = WheelBuilder::new("two").file("two.py", b"import one\nvalue = one.value\n");
        [one, two]
    }

    #[test]
    fn a_layer_has_the_compiled_modules_that_python_then_runs() {
        let (_directory, store) = new_store();
        let machine = Machine::new(&store);
        let [one, two] = wheels();
        let set = lock(&store, &[&one, &two]);
        let root = tempfile::tempdir().unwrap();
        let mut files = BTreeMap::new();
        for layer in machine.layers(&set, &store) {
            let tar = gunzip(&bytes_of(&store, &layer));
            assert_eq!(forebay_store::Sha256Digest::of(&tar), layer.diff_id);
            files.extend(entries(&tar));
            ::tar::Archive::new(tar.as_slice())
                .unpack(root.path())
                .unwrap();
        }
        let site = machine.scheme().purelib;
        let (major, minor) = machine.version;
        let tag = format!("cpython-{major}{minor}");
        let compiled: Vec<&str> = files
            .keys()
            .filter_map(|path| path.strip_suffix(".pyc")?.strip_prefix(&format!("{site}/")))
            .collect();
        let expected = [
            "one/__pycache__/__init__",
            "one/deep/__pycache__/__init__",
            "__pycache__/two",
        ];
        let mut expected = expected.map(|path| format!("{path}.{tag}"));
        expected.sort();
        assert_eq!(compiled, expected);
        let record = &files[&format!("{site}/one-1.0.dist-info/RECORD")];
        assert!(
            record.contains(&format!("\none/__pycache__/__init__.{tag}.pyc,,\n")),
            "{record}"
        );

        // Sources that say something else show what is run.
        write(
            &root.path().join(&site),
            "one/deep/__init__.py",
            "value = 'source'\n",
        );
        let ran = Command::new(&machine.executable)
            .args(["-B", "-c", "import two; print(two.value[0])"])
            .env("PYTHONPATH", root.path().join(&site))
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&ran.stdout),
            "a b\n",
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }

    #[test]
    fn what_is_compiled_once_is_only_looked_up_and_the_same_in_another_store() {
        let ((_first, first), (_second, second)) = (new_store(), new_store());
        let machine = Machine::new(&first);
        let [one, two] = wheels();
        let layers = machine.layers(&lock(&first, &[&one, &two]), &first);
        let asked = machine.asked.load(Ordering::Relaxed);
        assert!(asked > 0);
        // Another set with the same wheels: other layers, the same modules.
        machine.layers(&lock(&first, &[&two]), &first);
        assert_eq!(machine.asked.load(Ordering::Relaxed), asked);

        let again = machine.layers(&lock(&second, &[&one, &two]), &second);
        assert_eq!(layers, again);
        assert!(machine.asked.load(Ordering::Relaxed) > asked);
        let without = wheel_layers::build(
            &lock(&second, &[&one, &two]),
            &machine.scheme(),
            None,
            &second,
            &Silent,
        );
        assert_ne!(layers, without.unwrap());
    }

    #[test]
    fn of_a_project_only_what_changed_is_compiled() {
        let project = tempfile::tempdir().unwrap();
        write_project(project.path());
        let (_directory, store) = new_store();
        let machine = Machine::new(&store);
        let scheme = machine.scheme();
        let layer = || {
            let tree = store.scan(project.path(), &|_, _| false).unwrap();
            let context = BuildContext {
                directory: project.path(),
                tree: &tree,
            };
            let layer = machine.with(|bytecode| {
                project_layer::build(
                    &source(&parts()),
                    &context,
                    &scheme,
                    Some(bytecode),
                    &store,
                    &Silent,
                )
                .unwrap()
            });
            entries(&gunzip(&bytes_of(&store, &layer)))
        };
        let first = layer();
        let compiled = |files: &BTreeMap<String, String>, name: &str| {
            let found = files
                .iter()
                .find(|(path, _)| path.ends_with(".pyc") && path.contains(name));
            found.unwrap().1.clone()
        };
        assert_eq!(
            first.keys().filter(|path| path.ends_with(".pyc")).count(),
            3
        );
        assert_eq!(machine.asked.load(Ordering::Relaxed), 1);

        // Metadata makes another layer of the same modules.
        write(project.path(), "resources/sub/query.sql", "select 2\n");
        layer();
        assert_eq!(machine.asked.load(Ordering::Relaxed), 1);

        write(project.path(), "hello_world/jobs/work.py", "x = 2\n");
        let changed = layer();
        assert_eq!(machine.asked.load(Ordering::Relaxed), 2);
        assert_ne!(compiled(&first, "work"), compiled(&changed, "work"));
        assert_eq!(
            compiled(&first, "jobs/__pycache__/__init__"),
            compiled(&changed, "jobs/__pycache__/__init__")
        );
    }
}
