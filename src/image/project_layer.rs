//! The layer with the project itself, as `pip install dist/*.whl` would have
//! left it, with nothing in it that changes without the sources.

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use forebay_store::{ObjectDigest, Realisation, Recipe, Sha256Digest, Store};
use serde::Serialize;
use sha2::Digest as _;

use super::ImageError;
use super::bytecode::Bytecode;
use super::context::{BuildContext, ContextFile};
use super::file_layer::{self, ENCODER, FileContent, Hashing};
use super::kept_modules::CompiledModule;
use super::layer::{self, Layer};
use super::members::{self, LastLayer, Packed};
use super::metadata;
use super::project::{ProjectFiles, ProjectSource};
use super::tar::{FileTree, Node};
use crate::progress::{Event, Progress};
use crate::wheels::{ArchiveWriter, InstallScheme, add_unhashed, script_for, write_record};

/// Changes whenever the same project would give other bytes.
const RECIPE_VERSION: u32 = 3;

/// Changes whenever the same project would give another wheel.
const WHEEL_VERSION: u32 = 2;

/// The only output of a wheel's recipe.
const WHEEL: &str = "wheel";

/// Everything that decides the layer.
#[derive(Serialize)]
struct Inputs<'a> {
    encoder: &'a str,
    scheme: &'a InstallScheme,
    version: &'a str,
    sources: String,
    bytecode: Option<String>,
}

/// Names everything of the project that its wheel has: files by their paths and
/// digests, and what the specification says.
fn sources_digest(
    source: &ProjectSource<'_>,
    files: &ProjectFiles,
    existing_pyproject: &str,
) -> Result<ObjectDigest, ImageError> {
    let listed = |files: &BTreeMap<String, ContextFile>| -> Vec<String> {
        files
            .iter()
            .map(|(to, file)| format!("{to}\0{}\0{}", file.digest, file.executable))
            .collect()
    };
    let metadata = metadata::metadata(source, "0", files.requires.as_deref().unwrap_or_default());
    let pyproject =
        metadata::pyproject(existing_pyproject, source, "0", files.requires.as_deref())?;
    let all = super::json(&(
        listed(&files.modules),
        listed(&files.data),
        listed(&files.scripts),
        listed(&files.sources),
        &files.entry_points,
        &files.top_level,
        metadata,
        pyproject,
    ))?;
    Ok(ObjectDigest::of(&all))
}

/// The layer of `source`, installed by `scheme`; from the store if these
/// sources were built before.
///
/// # Errors
/// A project that setuptools would be needed for, a file that changed since the
/// scan, or the store.
pub(super) fn build(
    source: &ProjectSource<'_>,
    context: &BuildContext<'_>,
    scheme: &InstallScheme,
    bytecode: Option<&Bytecode<'_>>,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Layer, ImageError> {
    let Collected {
        files,
        existing_pyproject,
        digest,
        version,
    } = Collected::of(source, context)?;
    let inputs = Inputs {
        encoder: ENCODER,
        scheme,
        version: &version,
        sources: digest.to_string(),
        bytecode: bytecode.map(|bytecode| bytecode.fingerprint.to_string()),
    };
    let key = Recipe::new("project-layer", RECIPE_VERSION, &inputs)?.key();
    if let Some(layer) = layer::realised(store, &key)? {
        return Ok(layer);
    }
    for warning in &files.warnings {
        progress.report(Event::Warning(warning.clone()));
    }
    let mut batch = store.begin()?;
    let compiled = match bytecode {
        None => BTreeMap::new(),
        Some(bytecode) => {
            let modules = files.modules.iter();
            let modules =
                modules.map(|(path, file)| (format!("{}/{path}", scheme.purelib), file.clone()));
            bytecode.of_project(source.name, &modules.collect(), context, store, &mut batch)?
        }
    };
    let wheel = ProjectWheel {
        source,
        context,
        scheme,
        version: &version,
        pyproject: metadata::pyproject(
            &existing_pyproject,
            source,
            &version,
            files.requires.as_deref(),
        )?,
        files,
        last: LastLayer::find(store, &("project-layer", source.name, scheme))?,
    };
    let Installed { tree, hashes } = wheel.install(compiled)?;
    let (info, diff_id) = file_layer::write(&tree, context, &wheel.last, hashes, &mut batch)?;
    let created_by = format!("pip install {}", source.name);
    let layer = layer::object_layer(&info, diff_id, &created_by);
    layer::realise(&mut batch, &key, &layer, [("blob".to_owned(), info.digest)])?;
    batch.commit()?;
    Ok(layer)
}

/// A project's files, and what they are called together.
struct Collected {
    files: ProjectFiles,
    existing_pyproject: String,
    digest: ObjectDigest,
    version: String,
}

impl Collected {
    fn of(source: &ProjectSource<'_>, context: &BuildContext<'_>) -> Result<Self, ImageError> {
        let files = ProjectFiles::collect(source, context)?;
        let existing_pyproject = match context.tree.get("pyproject.toml") {
            Some(_) => read_text(context, "pyproject.toml")?,
            None => String::new(),
        };
        let digest = sources_digest(source, &files, &existing_pyproject)?;
        // The version is a label: one that moved with every commit would make a
        // new image of unchanged sources.
        let version = match source.version {
            Some(version) => metadata::normal_version(version),
            None => format!("0+t{:.12}", digest.to_string()),
        };
        Ok(Self {
            files,
            existing_pyproject,
            digest,
            version,
        })
    }
}

/// The project's wheel, the same as in the image: its file name and its bytes, which depend on
/// nothing but the sources; from the store if it was made of them before.
///
/// # Errors
/// See [`build`].
pub fn project_wheel(
    source: &ProjectSource<'_>,
    context: &BuildContext<'_>,
    store: &Store,
) -> Result<(String, Vec<u8>), ImageError> {
    let collected = Collected::of(source, context)?;
    let stem = format!(
        "{}-{}",
        source.name.replace('-', "_"),
        collected.version.replace('-', "_")
    );
    let name = format!("{stem}-py3-none-any.whl");
    let inputs = (&name, collected.digest.to_string());
    let key = Recipe::new("project-wheel", WHEEL_VERSION, &inputs)?.key();
    // Another machine makes it as quickly as it would fetch it.
    let known = store.local_realisation(&key)?;
    if let Some(digest) = known.and_then(|known| known.outputs.get(WHEEL).copied())
        && let Ok(bytes) = store.read(&digest)
    {
        return Ok((name, bytes));
    }
    let bytes = write_wheel(source, context, collected, &stem)?;
    let mut batch = store.begin()?;
    let outputs = BTreeMap::from([(WHEEL.to_owned(), batch.put(&bytes)?.digest)]);
    batch.realise(&key, &Realisation { outputs })?;
    batch.commit()?;
    Ok((name, bytes))
}

fn write_wheel(
    source: &ProjectSource<'_>,
    context: &BuildContext<'_>,
    collected: Collected,
    stem: &str,
) -> Result<Vec<u8>, ImageError> {
    let cannot_write = || ImageError::io("cannot write the project's wheel");
    let Collected {
        files,
        existing_pyproject,
        version,
        ..
    } = collected;
    // The folders of a wheel (PyPA specification "Binary distribution format"); `#!python` is
    // what installing replaces.
    let scheme = InstallScheme {
        purelib: "purelib".to_owned(),
        platlib: "purelib".to_owned(),
        scripts: "scripts".to_owned(),
        headers: "headers".to_owned(),
        data: "data".to_owned(),
        interpreter: "python".to_owned(),
    };
    let requires = files.requires.as_deref();
    let pyproject = metadata::pyproject(&existing_pyproject, source, &version, requires)?;
    let made_by_installing: Vec<String> = files
        .entry_points
        .iter()
        .filter(|(group, ..)| matches!(group.as_str(), "console_scripts" | "gui_scripts"))
        .map(|(_, name, _)| format!("scripts/{name}"))
        .collect();
    let wheel = ProjectWheel {
        source,
        context,
        scheme: &scheme,
        version: &version,
        pyproject,
        files,
        last: LastLayer::none(),
    };
    let Installed { tree, .. } = wheel.install(BTreeMap::new())?;
    let mut contents: BTreeMap<String, (Vec<u8>, bool)> = BTreeMap::new();
    for (path, node) in tree.iter() {
        let Node::File {
            content,
            executable,
            ..
        } = node
        else {
            continue;
        };
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_installers = path.ends_with(&format!("{stem}.dist-info/{name}"))
            && matches!(name, "INSTALLER" | "RECORD");
        if is_installers || made_by_installing.iter().any(|made| made == path) {
            continue;
        }
        let place = match path.strip_prefix("purelib/") {
            Some(rest) => rest.to_owned(),
            None => format!("{stem}.data/{path}"),
        };
        let mut bytes = Vec::new();
        content
            .reader(context)?
            .read_to_end(&mut bytes)
            .map_err(ImageError::io(format!("cannot read /{path}")))?;
        contents.insert(place, (bytes, *executable));
    }
    let record_path = format!("{stem}.dist-info/RECORD");
    let recorded = contents.iter().map(|(path, (bytes, _))| {
        (
            path.as_str(),
            Some(Sha256Digest::of(bytes)),
            bytes.len() as u64,
        )
    });
    let record = write_record(recorded, "", &record_path);
    contents.insert(record_path, (record, false));
    let mut writer = ArchiveWriter::new(Vec::new(), 6);
    for (path, (bytes, executable)) in &contents {
        writer
            .add(path, bytes, *executable)
            .map_err(cannot_write())?;
    }
    writer.finish().map_err(cannot_write())
}

fn read_text(context: &BuildContext<'_>, path: &str) -> Result<String, ImageError> {
    String::from_utf8(context.read(&context.file(path)?)?).map_err(|_| ImageError::Project {
        problem: format!("{path} is not UTF-8"),
    })
}

struct ProjectWheel<'a> {
    source: &'a ProjectSource<'a>,
    context: &'a BuildContext<'a>,
    scheme: &'a InstallScheme,
    version: &'a str,
    pyproject: String,
    files: ProjectFiles,
    /// What is known of the files without reading them.
    last: LastLayer,
}

/// All that installing leaves behind.
struct Installed {
    tree: FileTree<FileContent>,
    /// The SHA-256 of files of the project by their BLAKE3.
    hashes: BTreeMap<ObjectDigest, Sha256Digest>,
}

impl ProjectWheel<'_> {
    /// Installs the project with these `.pyc` files, by their paths in the image.
    fn install(&self, compiled: BTreeMap<String, CompiledModule>) -> Result<Installed, ImageError> {
        let site = &self.scheme.purelib;
        let prefix = &self.scheme.data;
        let bigflow = format!("{prefix}/bigflow__project/{}", self.source.name);
        let escaped = self.source.name.replace('-', "_");
        let dist_info = format!(
            "{site}/{escaped}-{}.dist-info",
            self.version.replace('-', "_")
        );

        let mut installed: BTreeMap<String, (FileContent, bool)> = BTreeMap::new();
        for (path, file) in &self.files.modules {
            let content = (FileContent::Context(file.clone()), file.executable);
            installed.insert(format!("{site}/{path}"), content);
        }
        for (path, file) in &self.files.data {
            let content = (FileContent::Context(file.clone()), file.executable);
            installed.insert(format!("{prefix}/{path}"), content);
        }
        for (name, file) in &self.files.scripts {
            let script = self.script(file)?;
            installed.insert(format!("{}/{name}", self.scheme.scripts), (script, true));
        }
        let mut generate = |path: String, text: String| {
            installed.insert(path, (FileContent::Bytes(text.into_bytes()), false));
        };
        generate(format!("{bigflow}/pyproject.toml"), self.pyproject.clone());
        let requires = self.files.requires.as_deref().unwrap_or_default();
        let metadata = metadata::metadata(self.source, self.version, requires);
        generate(format!("{dist_info}/METADATA"), metadata);
        generate(
            format!("{dist_info}/WHEEL"),
            "Wheel-Version: 1.0\nGenerator: forebay\nRoot-Is-Purelib: true\nTag: py3-none-any\n\n"
                .to_owned(),
        );
        generate(format!("{dist_info}/INSTALLER"), "forebay\n".to_owned());
        let top_level = self.files.top_level.iter().map(|name| format!("{name}\n"));
        generate(format!("{dist_info}/top_level.txt"), top_level.collect());
        if !self.files.entry_points.is_empty() {
            generate(format!("{dist_info}/entry_points.txt"), self.entry_points());
        }
        for (group, name, value) in &self.files.entry_points {
            if matches!(group.as_str(), "console_scripts" | "gui_scripts") {
                let script = script_for(&self.scheme.interpreter, name, value)
                    .map_err(|problem| ImageError::Project { problem })?;
                let path = format!("{}/{name}", self.scheme.scripts);
                installed.insert(path, (FileContent::Bytes(script), true));
            }
        }
        let archive = FileContent::Archive(self.source_archive()?);
        installed.insert(format!("{bigflow}/bf-project.tar"), (archive, false));

        let record_path = format!("{dist_info}/RECORD");
        let mut recorded = Vec::new();
        let mut hashes = BTreeMap::new();
        for (path, (content, _)) in &installed {
            let (sha256, size) = self.measure(path, content)?;
            recorded.push((path.as_str(), Some(sha256), size));
            if let FileContent::Context(file) = content {
                hashes.insert(file.digest, sha256);
            }
        }
        let sizes: Vec<u64> = recorded.iter().map(|(_, _, size)| *size).collect();
        let record = write_record(recorded.into_iter(), site, &record_path);
        let record = add_unhashed(&record, compiled.keys().map(String::as_str), site);
        let record_size = record.len() as u64;

        let mut tree = FileTree::default();
        let record = (record_path, (FileContent::Bytes(record), false));
        let sized = installed.into_iter().zip(sizes);
        for ((path, (content, executable)), size) in sized.chain([(record, record_size)]) {
            let node = Node::File {
                content,
                size,
                executable,
            };
            tree.insert(path, node)?;
        }
        for (path, module) in compiled {
            if tree.contains(&path) {
                continue;
            }
            let node = Node::File {
                size: module.size(),
                content: FileContent::Compiled(module),
                executable: false,
            };
            tree.insert(path, node)?;
        }
        Ok(Installed { tree, hashes })
    }

    /// A script of `setup(scripts=…)`: one for Python gets the image's interpreter.
    fn script(&self, file: &ContextFile) -> Result<FileContent, ImageError> {
        let bytes = self.context.read(file)?;
        let line_end = bytes
            .iter()
            .position(|&b| b == b'\n')
            .unwrap_or(bytes.len());
        let (first, rest) = bytes.split_at(line_end);
        let is_python = first.starts_with(b"#!") && first.windows(6).any(|w| w == b"python");
        if !is_python {
            return Ok(FileContent::Bytes(bytes));
        }
        let mut script = format!("#!{}", self.scheme.interpreter).into_bytes();
        script.extend_from_slice(rest);
        Ok(FileContent::Bytes(script))
    }

    fn entry_points(&self) -> String {
        let mut text = String::new();
        let mut current = None;
        for (group, name, value) in &self.files.entry_points {
            if current != Some(group) {
                if current.is_some() {
                    text.push('\n');
                }
                text.push_str(&format!("[{group}]\n"));
                current = Some(group);
            }
            text.push_str(&format!("{name} = {value}\n"));
        }
        text
    }

    /// `bf-project.tar`: the sources, from which `bigflow.build.reflect` builds
    /// the package again inside Beam and Spark jobs. They take its one folder, whatever it
    /// is called; a version in that name would change every header with every source.
    fn source_archive(&self) -> Result<Packed, ImageError> {
        let root = self.source.name;
        let mut tree = FileTree::default();
        let mut add = |path: &str, content: FileContent, size: u64, executable: bool| {
            let node = Node::File {
                content,
                size,
                executable,
            };
            tree.insert(format!("{root}/{path}"), node)
        };
        for (path, file) in &self.files.sources {
            let content = FileContent::Context(file.clone());
            add(path, content, file.size, file.executable)?;
        }
        let mut generated = vec![
            ("pyproject.toml", self.pyproject.clone()),
            (
                "PKG-INFO",
                metadata::metadata(self.source, self.version, &[]),
            ),
        ];
        if !self.files.sources.contains_key("setup.py") {
            let shim = "from bigflow.build import setup; setup()\n";
            generated.push(("setup.py", shim.to_owned()));
        }
        for (path, text) in generated {
            let size = text.len() as u64;
            add(path, FileContent::Bytes(text.into_bytes()), size, false)?;
        }
        members::pack(&tree, self.context, &self.last)
    }

    /// The SHA-256 and size of a file.
    fn measure(
        &self,
        path: &str,
        content: &FileContent,
    ) -> Result<(Sha256Digest, u64), ImageError> {
        match content {
            FileContent::Archive(archive) => return Ok((archive.sha256, archive.size)),
            FileContent::Context(file) => {
                if let Some(sha256) = self.last.sha256(&file.digest) {
                    return Ok((sha256, file.size));
                }
            }
            FileContent::Bytes(_) | FileContent::Compiled(_) => {}
        }
        let mut hashing = Hashing::default();
        io::copy(&mut content.reader(self.context)?, &mut hashing)
            .map_err(ImageError::io(format!("cannot read /{path}")))?;
        let sha256 = Sha256Digest::from_bytes(hashing.hash.finalize().into());
        Ok((sha256, hashing.size))
    }
}
