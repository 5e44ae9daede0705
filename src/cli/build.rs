//! `forebay build`, `forebay build-dags` and `forebay build-image`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::arguments::{BuildArguments, DagArguments};
use super::caching::Caching;
use super::check::{First, check};
use super::context::Context;
use super::services::LazyServices;
use crate::artifacts::{Build, BuildError, ImageNaming};
use crate::dags::{DagFile, write_folder};
use crate::oci::Sha256Digest;
use crate::ui::{CommandError, Exit, count};
use forebay_store::ObjectDigest;

/// Whether the image becomes a file.
#[derive(Debug, Clone, Copy, Args)]
struct ExportArguments {
    /// Write the image to .image/image-VERSION.tar for `docker load`; BigFlow does that unless told not to, here nothing needs the file, and for it the base's layers are downloaded
    #[arg(long, overrides_with = "no_export_image_tar")]
    export_image_tar: bool,

    /// Write no such file; this is the default
    #[arg(long)]
    no_export_image_tar: bool,

    /// Build a second time, in a new store that knows nothing, and name the first thing that differs
    #[arg(long)]
    check: bool,
}

/// What is not taken from before.
#[derive(Debug, Clone, Copy, Args)]
struct RebuildArguments {
    /// Run the Dockerfile's lines that need a container again, though nothing that they are given has changed: for newer system packages
    #[arg(long)]
    rebuild: bool,
}

/// Flags of `build`.
#[derive(Debug, Args)]
pub(super) struct All {
    #[command(flatten)]
    with_dags: WithDags,
    #[command(flatten)]
    export: ExportArguments,
    #[command(flatten)]
    rebuild: RebuildArguments,
}

/// Flags of `build-dags`.
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
    #[command(flatten)]
    export: ExportArguments,
    #[command(flatten)]
    rebuild: RebuildArguments,
}

/// What is wanted.
enum Wanted<'a> {
    Everything(&'a DagArguments, ExportArguments),
    Dags(&'a DagArguments),
    Image(ExportArguments),
}

impl Wanted<'_> {
    fn exports(&self) -> bool {
        match self {
            Self::Everything(_, export) | Self::Image(export) => {
                export.export_image_tar && !export.no_export_image_tar
            }
            Self::Dags(_) => false,
        }
    }

    fn checks(&self) -> bool {
        match self {
            Self::Everything(_, export) | Self::Image(export) => export.check,
            Self::Dags(_) => false,
        }
    }

    fn dags(&self) -> Option<&DagArguments> {
        match self {
            Self::Everything(dags, _) | Self::Dags(dags) => Some(dags),
            Self::Image(_) => None,
        }
    }
}

/// What `--json` prints (`schema/build.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    version: String,
    /// Null if the DAG files name it by tag and nobody asked for it.
    image: Option<Sha256Digest>,
    /// The file that `--export-image-tar` wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_tar: Option<PathBuf>,
    /// Names of files to the BLAKE3 of their bytes.
    dags: BTreeMap<String, ObjectDigest>,
}

pub(super) fn everything(context: &Context, arguments: &All) -> Result<Exit, CommandError> {
    let WithDags { build, dags } = &arguments.with_dags;
    let wanted = Wanted::Everything(dags, arguments.export);
    run(context, build, &wanted, arguments.rebuild)
}

pub(super) fn dags(context: &Context, arguments: &WithDags) -> Result<Exit, CommandError> {
    let wanted = Wanted::Dags(&arguments.dags);
    run(
        context,
        &arguments.build,
        &wanted,
        RebuildArguments { rebuild: false },
    )
}

pub(super) fn image(context: &Context, arguments: &ImageAlone) -> Result<Exit, CommandError> {
    let wanted = Wanted::Image(arguments.export);
    run(context, &arguments.build, &wanted, arguments.rebuild)
}

fn run(
    context: &Context,
    arguments: &BuildArguments,
    wanted: &Wanted<'_>,
    RebuildArguments { rebuild }: RebuildArguments,
) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let (target, services) = LazyServices::of_build(&workspace, arguments)?;
    let caching = Caching::new(
        &workspace,
        &target,
        &arguments.cache,
        &arguments.authentication,
    )?;
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?.rebuilding(rebuild);
    caching.expect(&build)?;
    let (image, image_tar, files) = context.block_on(caching.retry(async || {
        let needs_image = match wanted {
            Wanted::Everything(..) | Wanted::Image(_) => true,
            Wanted::Dags(arguments) => {
                arguments.options().image_naming(&workspace) == ImageNaming::Digest
            }
        };
        let mut image_tar = None;
        let image = if needs_image {
            let image = build.image().await?;
            if wanted.exports() {
                image_tar = Some(build.export_image(&image).await?);
            }
            Some(image)
        } else {
            None
        };
        let digest = image.as_ref().map(|image| *image.digest());
        let files = match wanted.dags() {
            None => Vec::new(),
            Some(dags) => {
                let options = dags.options();
                let by_digest = options.image_naming(&workspace) == ImageNaming::Digest;
                let named = digest.as_ref().filter(|_| by_digest);
                build.dag_files(&options, named).await?
            }
        };
        if wanted.checks() {
            let first = First {
                workspace: &workspace,
                build: &build,
                image: image.as_ref(),
                files: &files,
            };
            check(context, arguments, wanted.dags(), &first).await?;
        }
        Ok((digest, image_tar, files))
    }))?;
    build.keep(match wanted {
        Wanted::Everything(..) => "everything",
        Wanted::Dags(_) => "dags",
        Wanted::Image(_) => "image",
    })?;
    if !matches!(wanted, Wanted::Image(_)) {
        let folder = workspace.project().directory.join(".dags");
        write_folder(&folder, &files, &build.image_by_tag()?).map_err(BuildError::from)?;
    }
    caching.finish();
    let document = Document {
        environment: target.environment.to_string(),
        version: build.version().to_string(),
        image,
        image_tar,
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
    if let Some(path) = &document.image_tar {
        text.push_str(&format!("file    {}\n", path.display()));
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
