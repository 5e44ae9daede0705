//! Warns of credentials that would become content: whoever can pull an image
//! reads its files.

use std::collections::BTreeSet;

use super::ImageError;
use super::built::ImageRequest;
use super::plan::Step;
use super::project::ProjectFiles;
use crate::progress::{Event, Progress};
use crate::wheels::has_credentials;

/// Bytes of a file that are looked through; no requirements file has more.
const MAX_FILE: u64 = 1 << 20;

/// Whether a file may hold requirements, going by its name.
fn may_hold_requirements(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    let kind = name.contains("require") || name.contains("constraint");
    (kind && (name.ends_with(".txt") || name.ends_with(".in"))) || name == "pip.conf"
}

/// Warns of every requirements file that the image will have, be it by COPY or
/// in the project's source archive, and that names a URL with a password.
///
/// # Errors
/// A file that changed since the scan.
pub(super) fn warn(request: &ImageRequest<'_>, progress: &dyn Progress) -> Result<(), ImageError> {
    let context = &request.context;
    let plan = request.plan;
    let mut paths = BTreeSet::new();
    for step in &plan.steps {
        match step {
            Step::Copy { files, .. } => paths.extend(files.iter().map(|file| file.from.clone())),
            Step::Project => {
                paths.extend(
                    ProjectFiles::collect(request.project, context)?
                        .sources
                        .into_keys(),
                );
            }
            Step::Engine(step) => paths.extend(step.files.iter().cloned()),
            Step::Directory { .. } | Step::Wheels => {}
        }
    }
    for path in paths {
        if !may_hold_requirements(&path) && !plan.requirement_files.contains(&path) {
            continue;
        }
        let Ok(file) = context.file(&path) else {
            continue;
        };
        if file.size <= MAX_FILE && has_credentials(&String::from_utf8_lossy(&context.read(&file)?))
        {
            progress.report(Event::Warning(format!(
                "{path} becomes part of the image, and has a URL with a user or password: \
                 write ${{VARIABLE}} in its place, which pip reads from the environment"
            )));
        }
    }
    Ok(())
}
