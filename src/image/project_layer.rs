//! The layer with the project itself, as `pip install dist/*.whl` would have
//! left it, with nothing in it that changes without the sources.

use std::collections::BTreeMap;

use forebay_store::{ObjectDigest, Recipe, Store};
use serde::Serialize;

use super::ImageError;
use super::bytecode::Bytecode;
use super::context::{BuildContext, ContextFile};
use super::file_layer::{self, ENCODER};
use super::layer::{self, Layer};
use super::members::LastLayer;
use super::metadata;
use super::project::{ProjectFiles, ProjectSource};
use super::project_install::{Installation, Installed};
use crate::progress::{Event, Progress};
use crate::wheels::InstallScheme;

/// Changes whenever the same project would give other bytes.
const RECIPE_VERSION: u32 = 3;

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
    let wheel = Installation {
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
pub(super) struct Collected {
    pub(super) files: ProjectFiles,
    pub(super) existing_pyproject: String,
    pub(super) digest: ObjectDigest,
    pub(super) version: String,
}

impl Collected {
    pub(super) fn of(
        source: &ProjectSource<'_>,
        context: &BuildContext<'_>,
    ) -> Result<Self, ImageError> {
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

fn read_text(context: &BuildContext<'_>, path: &str) -> Result<String, ImageError> {
    String::from_utf8(context.read(&context.file(path)?)?).map_err(|_| ImageError::Project {
        problem: format!("{path} is not UTF-8"),
    })
}
