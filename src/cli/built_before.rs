//! `--dags-dir`: DAG files that were built before.

use std::path::Path;

use super::arguments::DagArguments;
use super::place::Place;
use crate::artifacts::{BuildError, Target};
use crate::dags::{DagFile, DagFolder, read_folder};
use crate::environment::{Desired, DesiredDags, DesiredImage, Live};
use crate::registry::ManifestName;
use crate::ui::CommandError;

impl Place {
    /// What was built before. Nothing is written before the registry has shown the image.
    pub(super) async fn desired_of_folder(
        &self,
        target: &Target,
        folder: &Path,
        arguments: &DagArguments,
    ) -> Result<(Live, Desired), CommandError> {
        let folder = read_folder(folder).map_err(BuildError::from)?;
        let name = image_in(target, &folder)?;
        let digest = self.environment.find_image(&name).await?;
        let live = self.observe_and_adopt(&digest).await?;
        let dags = wanted_dags(folder.files, arguments)?;
        let desired = Desired {
            image: DesiredImage::Existing(digest),
            dags,
            version: folder.version,
            // Which sources the files were built from is their builder's knowledge.
            git: None,
        };
        Ok((live, desired))
    }
}

/// Files that were built before; with `--workflow`, those of that workflow.
pub(super) fn wanted_dags(
    files: Vec<DagFile>,
    arguments: &DagArguments,
) -> Result<DesiredDags, BuildError> {
    Ok(match arguments.options().workflow {
        None => DesiredDags::All(files),
        Some(workflow) => DesiredDags::Only(only(&workflow, files)?),
    })
}

fn only(workflow: &str, files: Vec<DagFile>) -> Result<Vec<DagFile>, BuildError> {
    let known = files.iter().map(|file| file.workflow.to_string()).collect();
    let files: Vec<_> = files
        .into_iter()
        .filter(|file| file.workflow.as_str() == workflow)
        .collect();
    match files.is_empty() {
        false => Ok(files),
        true => Err(BuildError::NoSuchWorkflow {
            id: workflow.to_owned(),
            known,
        }),
    }
}

/// The name of the folder's image in the environment's repository.
pub(super) fn image_in(target: &Target, folder: &DagFolder) -> Result<ManifestName, BuildError> {
    let repository = target.repository_text()?;
    let elsewhere = || BuildError::ImageElsewhere {
        image: folder.image.clone(),
        repository: repository.to_owned(),
    };
    let rest = folder
        .image
        .strip_prefix(repository)
        .ok_or_else(elsewhere)?;
    if let Some(digest) = rest.strip_prefix('@') {
        return Ok(ManifestName::Digest(
            digest.parse().map_err(|_| elsewhere())?,
        ));
    }
    let tag = rest.strip_prefix(':').ok_or_else(elsewhere)?;
    Ok(ManifestName::Tag(tag.parse()?))
}
