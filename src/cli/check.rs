//! `--check`: builds once more from nothing, and names the first thing that differs.

use super::arguments::{BuildArguments, DagArguments};
use super::context::Context;
use super::services::LazyServices;
use crate::artifacts::{Build, BuildError, ImageNaming, Workspace};
use crate::dags::DagFile;
use crate::image::{BuiltImages, first_difference};
use crate::ui::{CommandError, Exit};

/// What the first build gave.
pub(super) struct First<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) build: &'a Build<'a>,
    pub(super) image: Option<&'a BuiltImages>,
    pub(super) files: &'a [DagFile],
}

/// Builds again in a store of its own, which is removed afterwards.
///
/// # Errors
/// A difference, or whatever the second build meets.
pub(super) async fn check(
    context: &Context,
    arguments: &BuildArguments,
    dags: Option<&DagArguments>,
    first: &First<'_>,
) -> Result<(), CommandError> {
    let scratch = tempfile::tempdir().map_err(|error| {
        CommandError::new(Exit::Failed, "cannot make a temporary folder").why(error.to_string())
    })?;
    let workspace = context.workspace_with(scratch.path().to_owned())?;
    let (target, services) = LazyServices::of_build(&workspace, arguments)?;
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?.with_options(arguments.image.options());
    let mut image = None;
    if let Some(built) = first.image {
        let again = build.image().await?;
        for (one, two) in built.images().zip(again.images()) {
            let stores = (first.workspace.store(), workspace.store());
            let difference = first_difference((one, stores.0), (two, stores.1));
            if let Some(what) = difference.map_err(BuildError::from)? {
                return Err(differs(&what));
            }
        }
        image = Some(again);
    }
    if let Some(dags) = dags {
        let options = dags.options();
        let by_digest = options.image_naming(&workspace) == ImageNaming::Digest;
        let named = image
            .as_ref()
            .map(BuiltImages::digest)
            .filter(|_| by_digest);
        let again = build.dag_files(&options, named).await?;
        if let Some(what) = differing_file(first.files, &again) {
            // The hour may have changed in between, which the files say; then ours change with it.
            let ours = first.build.dag_files(&options, named).await?;
            if differing_file(&ours, &again).is_some() {
                return Err(differs(&what));
            }
        }
    }
    Ok(())
}

fn differing_file(one: &[DagFile], two: &[DagFile]) -> Option<String> {
    let differs = |(left, right): &(&DagFile, &DagFile)| {
        left.file_name != right.file_name || left.bytes != right.bytes
    };
    let differing = one.iter().zip(two).find(differs);
    let missing = one.get(two.len()).or(two.get(one.len()));
    differing
        .map(|(left, _)| left)
        .or(missing)
        .map(|file| format!("the DAG file {}", file.file_name))
}

fn differs(what: &str) -> CommandError {
    CommandError::new(Exit::Failed, format!("a second build is another one: {what}"))
        .why("something that the first build used is not the same the second time: files that changed meanwhile, requirements that are not pinned, code that reads the clock or the machine")
        .next("pin what is not pinned, or report the difference if everything is")
}
