//! What of a project is deployed, and what its sources give for it.

use std::path::Path;

use super::arguments::{DagArguments, DeployedDagArguments};
use super::place::Place;
use super::saved_image::EarlierBuild;
use crate::artifacts::{Build, DagOptions, ImageNaming, Workspace};
use crate::environment::{Desired, DesiredDags, DesiredImage, Live};
use crate::ui::CommandError;

/// What is to be deployed.
pub(super) enum Part<'a> {
    /// Image and DAG files.
    Everything(&'a DagArguments),
    /// The DAG files; the image must be in the registry.
    Dags(&'a DagArguments),
    /// DAG files that were built before; the image must be in the registry.
    Folder(&'a Path, &'a DagArguments),
    /// The image; the live DAG files stay.
    Image,
    /// An image that was saved before, perhaps with the DAG files of the same build.
    Earlier(EarlierBuild<'a>),
}

impl<'a> Part<'a> {
    /// Everything that is built; or, with `--dags-dir`, what was built before.
    pub(super) fn everything(arguments: &'a DeployedDagArguments) -> Self {
        match &arguments.dags_dir {
            Some(folder) => Self::Folder(folder, &arguments.dags),
            None => Self::Everything(&arguments.dags),
        }
    }

    /// Under which the store keeps what was used.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Everything(_) => "everything",
            Self::Dags(_) | Self::Folder(..) => "dags",
            Self::Image => "image",
            Self::Earlier(_) => "saved",
        }
    }

    /// The DAG files that are built; or, with `--dags-dir`, those that were built before.
    pub(super) fn dags(arguments: &'a DeployedDagArguments) -> Self {
        match &arguments.dags_dir {
            Some(folder) => Self::Folder(folder, &arguments.dags),
            None => Self::Dags(&arguments.dags),
        }
    }

    /// What the project's sources give. The DAG files come last: a changed one goes on from
    /// the start time that is live.
    pub(super) async fn desired_of_build(
        &self,
        place: &Place,
        build: &Build<'_>,
        workspace: &Workspace,
    ) -> Result<(Live, Desired), CommandError> {
        if let Part::Everything(arguments) | Part::Dags(arguments) = self {
            let mut options = arguments.options();
            options.live = place.expected_starts().await;
            build.begin_dag_files(&options).await;
        }
        let image = build.image().await?;
        let digest = *image.digest();
        let live = match self {
            // An image alone runs beside nothing.
            Part::Image => place.observe(&digest).await?,
            _ => place.observe_and_adopt(&digest).await?,
        };
        let desired = |dags| -> Result<Desired, CommandError> {
            Ok(Desired {
                image: match self {
                    Part::Dags(_) | Part::Folder(..) => DesiredImage::Existing(digest),
                    Part::Everything(_) | Part::Image | Part::Earlier(_) => {
                        DesiredImage::Push(build.to_push(&image)?)
                    }
                },
                dags,
                version: build.version().clone(),
                git: build.commit().cloned().map(Into::into),
            })
        };
        let (Part::Everything(arguments) | Part::Dags(arguments)) = self else {
            return Ok((live, desired(DesiredDags::Only(Vec::new()))?));
        };
        let mut options = arguments.options();
        let named = match options.image_naming(workspace) {
            ImageNaming::Digest => Some(&digest),
            ImageNaming::Tag => None,
        };
        let chosen = options.workflow.is_some();
        let dags = |files| match chosen {
            true => DesiredDags::Only(files),
            false => DesiredDags::All(files),
        };
        let built = async |options: &DagOptions| -> Result<_, CommandError> {
            let files = build.dag_files(options, named).await?;
            build.record_inputs(options, &digest, &files).await?;
            Ok(files)
        };
        options.live = place.starts(&live);
        if live.record().is_some() {
            let files = built(&options).await?;
            return Ok((live, desired(dags(files))?));
        }
        // Files are compared by what they are without their start times. So a machine that has
        // not seen the live record reads it only if something has changed.
        let files = built(&options).await?;
        let wanted = desired(dags(files))?;
        if live.generation().is_none() || place.environment.is_unchanged(&live, &wanted) {
            return Ok((live, wanted));
        }
        let live = place.environment.with_record(live).await?;
        options.live = place.starts(&live);
        let files = built(&options).await?;
        Ok((live, desired(dags(files))?))
    }
}
