//! The files of a project as pip would install them, with what pip writes beside them.

use std::collections::BTreeMap;
use std::io;

use forebay_store::{ObjectDigest, Sha256Digest};
use sha2::Digest as _;

use super::ImageError;
use super::context::{BuildContext, ContextFile};
use super::file_layer::{FileContent, Hashing};
use super::kept_modules::CompiledModule;
use super::members::{self, LastLayer, Packed};
use super::metadata;
use super::project::{ProjectFiles, ProjectSource};
use super::tar::{FileTree, Node};
use crate::wheels::{InstallScheme, add_unhashed, script_for, write_record};

/// A project about to be installed.
pub(super) struct Installation<'a> {
    pub(super) source: &'a ProjectSource<'a>,
    pub(super) context: &'a BuildContext<'a>,
    pub(super) scheme: &'a InstallScheme,
    pub(super) version: &'a str,
    pub(super) pyproject: String,
    pub(super) files: ProjectFiles,
    /// What is known of the files without reading them.
    pub(super) last: LastLayer,
}

/// All that installing leaves behind.
pub(super) struct Installed {
    pub(super) tree: FileTree<FileContent>,
    /// The SHA-256 of files of the project by their BLAKE3.
    pub(super) hashes: BTreeMap<ObjectDigest, Sha256Digest>,
}

impl Installation<'_> {
    /// Installs the project with these `.pyc` files, by their paths in the image.
    pub(super) fn install(
        &self,
        compiled: BTreeMap<String, CompiledModule>,
    ) -> Result<Installed, ImageError> {
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
