//! The project's own wheel in `dist/`.

use std::path::{Path, PathBuf};

use super::{Build, BuildError};
use crate::image::{BuildContext, ImageError, ProjectSource, project_wheel};
use crate::project::{ProjectSpec, TestFramework, Version};

impl Build<'_> {
    /// Writes the project's wheel into `dist/` in place of earlier ones, unless it is there, and
    /// gives its path. No Python is started, and no test is run.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn package(&self) -> Result<PathBuf, BuildError> {
        let project = self.workspace.project();
        let repository = project.spec.docker_repository.as_deref();
        let repository = repository.or(self.target.declared_repository());
        let source = project_source(&project.spec, &self.version, repository);
        let context = BuildContext {
            directory: &project.directory,
            tree: self.workspace.tree()?,
        };
        let (name, bytes) = project_wheel(&source, &context, self.workspace.store())?;
        let directory = project.directory.join("dist");
        let path = directory.join(&name);
        let stem = format!("{}-", name.split('-').next().unwrap_or_default());
        write_package(&directory, &stem, &name, &bytes).map_err(|source| ImageError::Io {
            action: format!("cannot write {}", path.display()),
            source,
        })?;
        Ok(path)
    }
}

/// The new wheel first, if it is not there; then earlier ones go: BigFlow's Dockerfiles install
/// `dist/*.whl`.
fn write_package(directory: &Path, stem: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let path = directory.join(name);
    if !std::fs::read(&path).is_ok_and(|there| there == bytes) {
        std::fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        std::io::Write::write_all(&mut file, bytes)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.persist(&path)?;
    }
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let other = entry.file_name();
        let other = other.to_string_lossy();
        if other != name && other.starts_with(stem) && other.ends_with(".whl") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What is known of the project without asking Python.
pub(super) fn project_source<'a>(
    spec: &'a ProjectSpec,
    version: &'a Version,
    docker_repository: Option<&'a str>,
) -> ProjectSource<'a> {
    // Only a release tag's version is content; between tags it moves with every commit.
    let is_release = !version.as_str().contains('+');
    ProjectSource {
        name: spec.name.as_str(),
        version: is_release.then_some(version.as_str()),
        packages: &spec.packages,
        resources_directory: &spec.resources_directory,
        requirements_file: &spec.requirements_file,
        requires: spec.requires.as_deref(),
        deployment_config_file: &spec.deployment_config_file,
        docker_repository,
        test_framework: match spec.test_framework {
            TestFramework::Unittest => "unittest",
            TestFramework::Pytest => "pytest",
        },
        export_image_tar: spec.export_image_tar,
        data_files: &spec.data_files,
        metadata: &spec.metadata,
        setuptools: &spec.setuptools,
    }
}
