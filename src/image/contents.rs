//! What is in an image, in words that two generations can be compared by.

use std::collections::BTreeMap;

use forebay_store::{ObjectDigest, TreeEntryKind};
use serde::{Deserialize, Serialize};

use super::project::ProjectFiles;
use super::{BaseImage, ImageError, ImageRequest, Step};
use crate::oci::Sha256Digest;

/// The contents of an image, as `objects/` keeps them beside the DAG files
/// (`schema/contents.schema.json`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageContents {
    /// The version of this format; see [`ImageContents::SCHEMA`].
    pub schema: u32,
    /// What it stands on; absent for `scratch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ContentsBase>,
    /// The installed distributions and their versions; not those of the base.
    pub packages: BTreeMap<String, String>,
    /// The project's files that it has, by their paths in the project, with the BLAKE3 of each.
    pub files: BTreeMap<String, ObjectDigest>,
}

/// The base of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentsBase {
    /// As the Dockerfile names it, if that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its manifest's digest.
    pub digest: Sha256Digest,
}

impl ImageContents {
    /// The version that we write.
    pub const SCHEMA: u32 = 1;

    /// What is in the image that `request` gives. Builds nothing.
    ///
    /// # Errors
    /// A file that is not in the project's folder.
    pub fn of(request: &ImageRequest<'_>) -> Result<Self, ImageError> {
        let context = &request.context;
        let mut files = BTreeMap::new();
        for step in &request.plan.steps {
            match step {
                Step::Copy { files: copied, .. } => {
                    for copied in copied {
                        let file = context.file(&copied.from)?;
                        files.insert(copied.from.clone(), file.digest);
                    }
                }
                // setup.py may have taken any file.
                Step::Project if request.project_wheel.is_some() => {
                    for entry in &context.tree.entries {
                        if let TreeEntryKind::File { digest, .. } = entry.kind {
                            files.insert(entry.path.clone(), digest);
                        }
                    }
                }
                Step::Project => {
                    let project = ProjectFiles::collect(request.project, context)?;
                    let kinds = [
                        project.modules,
                        project.data,
                        project.scripts,
                        project.sources,
                    ];
                    let all = kinds.into_iter().flat_map(BTreeMap::into_values);
                    files.extend(all.map(|file| (file.path, file.digest)));
                }
                Step::Engine(step) => {
                    for path in &step.files {
                        let file = context.file(path)?;
                        files.insert(path.clone(), file.digest);
                    }
                }
                Step::Directory { .. } | Step::Wheels => {}
            }
        }
        let wheels = request.wheels.wheels.iter().map(|wheel| &wheel.file_name);
        let packages =
            wheels.map(|name| (name.distribution().to_string(), name.version().to_owned()));
        Ok(Self {
            schema: Self::SCHEMA,
            base: base(request.base),
            packages: packages.collect(),
            files,
        })
    }

    /// The bytes that are kept: JSON without blanks.
    ///
    /// # Errors
    /// None that can be foreseen.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ImageError> {
        super::json(self)
    }
}

fn base(base: &BaseImage) -> Option<ContentsBase> {
    base.manifest.map(|digest| ContentsBase {
        name: base.name.clone(),
        digest,
    })
}
