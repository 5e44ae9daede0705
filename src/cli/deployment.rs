//! What all deploys and `plan` have in common:
//! build what is not built, look at what is live, compare.

use std::cell::OnceCell;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::adoption::{Adoption, Decision, adopt};
use super::arguments::{DagArguments, DeployArguments, DeployedDagArguments, ReplacingArguments};
use super::caching::Caching;
use super::saved_image::EarlierBuild;
use super::services::{Opened, Permissions};
use crate::artifacts::{Build, BuildError, ImageNaming, Target, Workspace, keep_build};
use crate::dags::{DagFile, DagFolder, LiveStarts, read_folder};
use crate::environment::{
    Desired, DesiredDags, DesiredImage, Environment, GenerationRecord, Live, Plan,
};
use crate::oci::Sha256Digest;
use crate::project::git_ancestors;
use crate::registry::ManifestName;
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
    fn name(&self) -> &'static str {
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
}

/// A comparison of what is live with what was built.
pub(super) struct Prepared {
    pub(super) environment: Environment,
    pub(super) target: Target,
    pub(super) plan: Plan,
    /// What BigFlow had left, if this is the first deploy.
    pub(super) adoption: Option<Adoption>,
}

/// How it is prepared.
#[derive(Default)]
pub(super) struct Preparation {
    /// End what another deploy has left unfinished, which writes.
    pub(super) settle: bool,
    /// When workflows start that a plan has a time for.
    pub(super) starts: LiveStarts,
    /// What becomes of the DAG files that are there.
    pub(super) replacing: ReplacingArguments,
    /// Whether somebody is there to answer questions.
    pub(super) can_ask: bool,
    /// Where others have built.
    pub(super) caching: Arc<Caching>,
}

/// Builds and compares.
pub(super) async fn prepare(
    workspace: &Workspace,
    arguments: &DeployArguments,
    part: &Part<'_>,
    preparation: Preparation,
) -> Result<Prepared, CommandError> {
    let permissions = Permissions {
        restore_drift: arguments.restore_drift,
        allow_older: arguments.allow_older,
        retire: preparation.replacing.retire(),
        clear_folder: preparation.replacing.clear_dags_folder,
        confirmed: preparation.replacing.yes,
    };
    let Opened {
        target,
        services,
        environment,
    } = Opened::new(workspace, &arguments.environment, permissions)?;
    let authentication = &arguments.environment.authentication;
    let caching = Arc::clone(&preparation.caching);
    caching.open(workspace, &target, &arguments.cache, authentication)?;
    let place = Place {
        environment,
        preparation,
        adoption: OnceCell::new(),
    };
    let open = services.opener();
    let mut build = None;
    let (live, desired) = match part {
        Part::Folder(folder, arguments) => {
            place.desired_of_folder(&target, folder, arguments).await?
        }
        Part::Earlier(build) => {
            let found = place
                .desired_of_earlier_build(workspace, &target, build)
                .await?;
            let project = workspace.project().spec.name.to_string();
            let environment = target.environment.to_string();
            keep_build(workspace.store(), &project, &environment, part.name())
                .map_err(BuildError::from)?;
            found
        }
        Part::Everything(_) | Part::Dags(_) | Part::Image => {
            let build = build.insert(Build::new(workspace, &target, &open)?);
            caching.expect(build)?;
            let found = place.desired_of_build(build, workspace, part).await?;
            build.keep(part.name())?;
            found
        }
    };
    let Place {
        environment,
        adoption,
        ..
    } = place;
    let adoption = adoption.into_inner();
    let directory = workspace.project().directory.clone();
    let is_ancestor = move |older: &str, newer: &str| is_ancestor(&directory, older, newer);
    let mut plan = environment.plan(live, desired, &is_ancestor).await?;
    if let (Some(build), false) = (&build, plan.is_unchanged()) {
        let limit = GenerationRecord::ANCESTORS;
        let directory = &workspace.project().directory;
        let commit = build.commit();
        let ancestors = commit.map(|git| git_ancestors(directory, &git.commit, limit));
        let contents = build.contents().await?.to_bytes();
        let contents = contents.map_err(BuildError::from)?;
        plan.note(ancestors.unwrap_or_default(), Some(contents.into()));
    }
    if let Some(Adoption {
        files,
        decision: Decision::Open,
    }) = &adoption
    {
        plan.bar(files.undecided());
    }
    Ok(Prepared {
        environment,
        target,
        plan,
        adoption,
    })
}

/// Where it goes.
pub(super) struct Place {
    pub(super) environment: Environment,
    preparation: Preparation,
    adoption: OnceCell<Adoption>,
}

impl Place {
    /// The live start times, and over them those of a plan.
    fn starts(&self, live: &Live) -> LiveStarts {
        let record = live.record().map(|record| record.starts());
        let mut starts = record.unwrap_or_default();
        let planned = &self.preparation.starts.workflows;
        starts
            .workflows
            .extend(planned.iter().map(|(id, start)| (id.clone(), *start)));
        starts
    }

    pub(super) async fn observe(&self, image: &Sha256Digest) -> Result<Live, CommandError> {
        let live = self.environment.observe(Some(image)).await?;
        Ok(match self.preparation.settle {
            true => self.environment.settle(live).await?.0,
            false => live,
        })
    }

    /// What is live, or will be once BigFlow's files are adopted.
    pub(super) async fn observe_and_adopt(
        &self,
        image: &Sha256Digest,
    ) -> Result<Live, CommandError> {
        let live = self.observe(image).await?;
        let Preparation {
            settle,
            replacing,
            can_ask,
            ..
        } = &self.preparation;
        let (live, adoption) = adopt(&self.environment, live, replacing, *settle, *can_ask).await?;
        if let Some(adoption) = adoption {
            let _ = self.adoption.set(adoption);
        }
        Ok(live)
    }

    /// What the project's sources give. The DAG files come last: a changed one goes on from
    /// the start time that is live.
    async fn desired_of_build(
        &self,
        build: &Build<'_>,
        workspace: &Workspace,
        part: &Part<'_>,
    ) -> Result<(Live, Desired), CommandError> {
        let image = build.image().await?;
        let digest = *image.digest();
        let live = match part {
            // An image alone runs beside nothing.
            Part::Image => self.observe(&digest).await?,
            _ => self.observe_and_adopt(&digest).await?,
        };
        let desired = |dags| -> Result<Desired, CommandError> {
            Ok(Desired {
                image: match part {
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
        let (Part::Everything(arguments) | Part::Dags(arguments)) = part else {
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
        options.live = self.starts(&live);
        if live.record().is_some() {
            let files = build.dag_files(&options, named).await?;
            return Ok((live, desired(dags(files))?));
        }
        // Files are compared by what they are without their start times. So a machine that has
        // not seen the live record reads it only if something has changed.
        let files = build.dag_files(&options, named).await?;
        let wanted = desired(dags(files))?;
        if live.generation().is_none() || self.environment.is_unchanged(&live, &wanted) {
            return Ok((live, wanted));
        }
        let live = self.environment.with_record(live).await?;
        options.live = self.starts(&live);
        let files = build.dag_files(&options, named).await?;
        Ok((live, desired(dags(files))?))
    }

    /// What was built before. Nothing is written before the registry has shown the image.
    async fn desired_of_folder(
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

/// Whether git knows `older` to be contained in `newer`; nothing if it does not know one of them.
fn is_ancestor(directory: &Path, older: &str, newer: &str) -> Option<bool> {
    let status = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["merge-base", "--is-ancestor", older, newer])
        .stderr(std::process::Stdio::null())
        .status()
        .ok()?;
    match status.code() {
        Some(0) => Some(true),
        Some(1) => Some(false),
        _ => None,
    }
}
