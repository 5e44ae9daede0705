//! `--image-tar-path`: an image that was built and saved before, alone or with the DAG files
//! of the same build.

use std::path::{Path, PathBuf};

use super::arguments::DagArguments;
use super::built_before::{image_in, wanted_dags};
use super::place::Place;
use crate::artifacts::{BuildError, SavedBuild, Target, Workspace};
use crate::dags::{DagFolder, read_folder};
use crate::environment::{Desired, DesiredDags, DesiredImage, Live};
use crate::image::saved::{ImageInfo, is_image_info};
use crate::oci::Sha256Digest;
use crate::project::Version;
use crate::registry::ManifestName;
use crate::ui::CommandError;

/// What is deployed of an earlier build.
pub(super) struct EarlierBuild<'a> {
    /// `image-VERSION.tar`, `imageinfo-VERSION.toml`, or an OCI layout.
    pub(super) image: &'a Path,
    /// The DAG files' folder and what else was said about them; none for the image alone.
    pub(super) dags: Option<(PathBuf, &'a DagArguments)>,
}

impl Place {
    /// What was built before. Everything is read, and the files are compared with the image,
    /// before the registry is written to.
    pub(super) async fn desired_of_earlier_build(
        &self,
        workspace: &Workspace,
        target: &Target,
        build: &EarlierBuild<'_>,
    ) -> Result<(Live, Desired), CommandError> {
        let folder = match &build.dags {
            Some((folder, arguments)) => {
                let folder = read_folder(folder).map_err(BuildError::from)?;
                Some((folder, *arguments))
            }
            None => None,
        };
        let (image, version) = self.saved_image(workspace, build.image).await?;
        let digest = match &image {
            DesiredImage::Push(image) => image.manifest.descriptor.digest,
            DesiredImage::Existing(digest) => *digest,
        };
        let dags = match folder {
            None => DesiredDags::Only(Vec::new()),
            Some((folder, arguments)) => {
                belong_together(target, &folder, &version, &digest)?;
                wanted_dags(folder.files, arguments)?
            }
        };
        let live = match build.dags {
            // An image alone runs beside nothing.
            None => self.observe(&digest).await?,
            Some(_) => self.observe_and_adopt(&digest).await?,
        };
        let desired = Desired {
            image,
            dags,
            version,
            // Which sources it was built from is its builder's knowledge.
            git: None,
        };
        Ok((live, desired))
    }

    async fn saved_image(
        &self,
        workspace: &Workspace,
        path: &Path,
    ) -> Result<(DesiredImage, Version), CommandError> {
        let build = if is_image_info(path) {
            let info = ImageInfo::read(path).map_err(BuildError::from)?;
            let version: Version = info.project_version.parse().map_err(BuildError::from)?;
            let name = ManifestName::Tag(version.image_tag().parse().map_err(BuildError::from)?);
            let pushed = (self.environment)
                .find_image_with_id(&name, &info.docker_image_id)
                .await?;
            if let Some(digest) = pushed {
                return Ok((DesiredImage::Existing(digest), version));
            }
            SavedBuild::from_engine(workspace, &info)?
        } else {
            SavedBuild::read(workspace, path)?
        };
        Ok((DesiredImage::Push(build.image.to_push()), build.version))
    }
}

/// Refuses DAG files that would run another image than the one that is deployed with them.
fn belong_together(
    target: &Target,
    folder: &DagFolder,
    version: &Version,
    digest: &Sha256Digest,
) -> Result<(), BuildError> {
    let is_same = match image_in(target, folder)? {
        ManifestName::Digest(named) => named == *digest,
        ManifestName::Tag(tag) => tag.to_string() == version.image_tag(),
    };
    match is_same {
        true => Ok(()),
        false => Err(BuildError::OtherImage {
            dags: folder.image.clone(),
            version: version.to_string(),
            digest: *digest,
        }),
    }
}
