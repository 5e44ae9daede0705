//! What decides an image, in words that two builds can be compared by.

use std::collections::BTreeMap;

use forebay_store::ObjectDigest;

use super::{ImageContents, ImageError, ImageRequest};
use crate::project::CompressionSetting;

/// Each input by a name that people understand, with what tells two values of it apart.
/// Builds nothing.
///
/// # Errors
/// A file that is not in the project's folder.
pub fn image_inputs(request: &ImageRequest<'_>) -> Result<BTreeMap<String, String>, ImageError> {
    let contents = ImageContents::of(request)?;
    let mut inputs = BTreeMap::new();
    let mut add = |name: String, value: String| inputs.insert(name, value);
    let base = match &contents.base {
        Some(base) => base.digest.to_string(),
        None => "scratch".to_owned(),
    };
    add("the base image".to_owned(), base);
    add("the platform".to_owned(), request.base.platform.to_string());
    for (path, digest) in contents.files {
        add(format!("file {path}"), digest.to_string());
    }
    for wheel in &request.wheels.wheels {
        let name = &wheel.file_name;
        // A wheel of the same version may have been built anew.
        let value = format!("{} ({})", name.version(), &wheel.object.to_string()[..12]);
        add(format!("package {}", name.distribution()), value);
    }
    let lines: Vec<&str> = request
        .plan
        .lines
        .iter()
        .map(|line| line.text.as_str())
        .collect();
    let text = lines.join("\n");
    add("the Dockerfile's instructions".to_owned(), digest(&text));
    for (name, value) in request.labels {
        add(format!("label {name}"), value.clone());
    }
    let bytecode = match &request.bytecode {
        Some(bytecode) => bytecode.fingerprint.to_string(),
        None => "none".to_owned(),
    };
    add("the compiler of .pyc files".to_owned(), bytecode);
    let compression = match request.compression {
        CompressionSetting::Splice => "spliced",
        CompressionSetting::Gzip => "gzip",
        CompressionSetting::Zstd => "zstd",
    };
    add("the layers' compression".to_owned(), compression.to_owned());
    if let Some(wheel) = request.project_wheel {
        let own = wheel.sha256.to_string();
        add("the project's own wheel".to_owned(), own);
    }
    let project = request.project;
    let specification = format!(
        "{:?}",
        (
            project.name,
            project.version,
            project.requires,
            project.data_files,
            project.metadata,
            project.setuptools
        )
    );
    add(
        "the project's specification".to_owned(),
        digest(&specification),
    );
    if let Some(created) = request.created {
        add("SOURCE_DATE_EPOCH".to_owned(), created.to_string());
    }
    Ok(inputs)
}

fn digest(text: &str) -> String {
    ObjectDigest::of(text.as_bytes()).to_string()
}
