//! `forebay build`, `forebay build-dags` and `forebay build-image`.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::arguments::{
    AuthenticationArguments, ConfigArguments, DagArguments, RepositoryArguments,
};
use super::context::Context;
use super::services::LazyServices;
use crate::build::{Build, BuildError, ImageNaming};
use crate::dags::{DagFile, write_folder};
use crate::oci::Sha256Digest;
use crate::ui::{CommandError, Exit, count};
use forebay_store::ObjectDigest;

/// What every build takes.
#[derive(Debug, Args)]
pub(super) struct BuildArguments {
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    repository: RepositoryArguments,
    #[command(flatten)]
    authentication: AuthenticationArguments,
}

/// Flags of `build` and `build-dags`.
#[derive(Debug, Args)]
pub(super) struct WithDags {
    #[command(flatten)]
    build: BuildArguments,
    #[command(flatten)]
    dags: DagArguments,
}

/// Flags of `build-image`.
#[derive(Debug, Args)]
pub(super) struct ImageAlone {
    #[command(flatten)]
    build: BuildArguments,
}

/// What is wanted.
enum Wanted<'a> {
    Everything(&'a DagArguments),
    Dags(&'a DagArguments),
    Image,
}

/// What `--json` prints (`schema/build.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    version: String,
    /// Null if the DAG files name it by tag and nobody asked for it.
    image: Option<Sha256Digest>,
    /// Names of files to the BLAKE3 of their bytes.
    dags: BTreeMap<String, ObjectDigest>,
}

pub(super) fn everything(context: &Context, arguments: &WithDags) -> Result<Exit, CommandError> {
    run(
        context,
        &arguments.build,
        &Wanted::Everything(&arguments.dags),
    )
}

pub(super) fn dags(context: &Context, arguments: &WithDags) -> Result<Exit, CommandError> {
    run(context, &arguments.build, &Wanted::Dags(&arguments.dags))
}

pub(super) fn image(context: &Context, arguments: &ImageAlone) -> Result<Exit, CommandError> {
    run(context, &arguments.build, &Wanted::Image)
}

fn run(
    context: &Context,
    arguments: &BuildArguments,
    wanted: &Wanted<'_>,
) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let target = workspace.target(arguments.config.target_of_build(&arguments.repository))?;
    let services = LazyServices::new(&target, &arguments.authentication, &arguments.repository)?;
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?;
    let (image, files) = context.block_on(async {
        let needs_image = match wanted {
            Wanted::Everything(_) | Wanted::Image => true,
            Wanted::Dags(arguments) => {
                arguments.options().image_naming(&workspace) == ImageNaming::Digest
            }
        };
        let image = match needs_image {
            true => Some(*build.image().await?.digest()),
            false => None,
        };
        let (Wanted::Everything(arguments) | Wanted::Dags(arguments)) = wanted else {
            return Ok((image, Vec::new()));
        };
        let options = arguments.options();
        let named = image
            .as_ref()
            .filter(|_| options.image_naming(&workspace) == ImageNaming::Digest);
        Ok((image, build.dag_files(&options, named).await?))
    })?;
    if !matches!(wanted, Wanted::Image) {
        let folder = workspace.project().directory.join(".dags");
        write_folder(&folder, &files, &build.image_by_tag()?).map_err(BuildError::from)?;
    }
    let document = Document {
        environment: target.environment.to_string(),
        version: build.version().to_string(),
        image,
        dags: files.iter().map(named_digest).collect(),
    };
    context.printer.result(&document, || text(&document))?;
    Ok(Exit::Done)
}

fn named_digest(file: &DagFile) -> (String, ObjectDigest) {
    (file.file_name.to_string(), ObjectDigest::of(&file.bytes))
}

fn text(document: &Document) -> String {
    let mut text = format!("version {}\n", document.version);
    if let Some(image) = &document.image {
        text.push_str(&format!("image   {image}\n"));
    }
    if !document.dags.is_empty() {
        text.push_str(&format!(
            "{} in .dags/\n",
            count(document.dags.len(), "DAG file")
        ));
        for name in document.dags.keys() {
            text.push_str(&format!("  {name}\n"));
        }
    }
    text
}
