//! `forebay build`, `forebay build-dags` and `forebay build-image`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::arguments::{BuildArguments, DagArguments};
use super::caching::{Caching, Usage};
use super::check::{First, check};
use super::context::Context;
use super::project_tests::{TestArguments, TestsDocument, test};
use super::services::LazyServices;
use crate::artifacts::{Build, BuildError, ImageNaming};
use crate::dags::{DagFile, write_folder};
use crate::oci::Sha256Digest;
use crate::ui::{CommandError, Exit, count};
use forebay_store::ObjectDigest;

/// Whether the image becomes a file.
#[derive(Debug, Clone, Args)]
struct ExportArguments {
    /// Write the image to .image/image-VERSION.tar for `docker load`; BigFlow does that unless told not to, here nothing needs the file, and for it the base's layers are downloaded
    #[arg(long, overrides_with = "no_export_image_tar")]
    export_image_tar: bool,

    /// Write no such file; this is the default
    #[arg(long)]
    no_export_image_tar: bool,

    /// Accepted for BigFlow's sake: what the store and the shared caches have is not built again
    #[arg(long, value_name = "IMAGE", hide_short_help = true)]
    cache_from_image: Vec<String>,

    /// Accepted for BigFlow's sake, like --cache-from-image
    #[arg(long, value_name = "VERSION", hide_short_help = true)]
    cache_from_version: Vec<String>,

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
#[command(
    after_help = "Writes the DAG files into .dags/, the wheel into dist/, the tests' report into build/junit-reports/, and the image into this machine's store; the first build also writes forebay.lock. Nothing is sent. The tests come first, and what fails them is not built; tests that have passed with the same sources and Python are not run again.\n\nExamples:\n  forebay build\n  forebay build -c prod --no-tests\n  forebay build --export-image-tar    also a file for `docker load`"
)]
pub(super) struct All {
    #[command(flatten)]
    with_dags: WithDags,
    #[command(flatten)]
    export: ExportArguments,
    #[command(flatten)]
    rebuild: RebuildArguments,
    #[command(flatten)]
    tests: TestArguments,
}

/// Flags of `build-dags`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes the DAG files into .dags/. They name the image by its digest, so that the image is built too, into this machine's store. Nothing is sent.\n\nExamples:\n  forebay build-dags -c dev\n  forebay build-dags -w my_workflow -t 2024-01-31\n  forebay build-dags --dag-format bigflow-1.11"
)]
pub(super) struct WithDags {
    #[command(flatten)]
    build: BuildArguments,
    #[command(flatten)]
    dags: DagArguments,
}

/// Flags of `build-image`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes the image into this machine's store; with --export-image-tar also into .image/. Nothing is sent.\n\nExamples:\n  forebay build-image -c dev\n  forebay build-image --export-image-tar\n  forebay build-image --check           whether a second build gives the same"
)]
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
    Everything(&'a DagArguments, &'a ExportArguments, TestArguments),
    Dags(&'a DagArguments),
    Image(&'a ExportArguments),
}

impl Wanted<'_> {
    fn exports(&self) -> bool {
        match self {
            Self::Everything(_, export, _) | Self::Image(export) => {
                export.export_image_tar && !export.no_export_image_tar
            }
            Self::Dags(_) => false,
        }
    }

    fn checks(&self) -> bool {
        match self {
            Self::Everything(_, export, _) | Self::Image(export) => export.check,
            Self::Dags(_) => false,
        }
    }

    fn dags(&self) -> Option<&DagArguments> {
        match self {
            Self::Everything(dags, ..) | Self::Dags(dags) => Some(dags),
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
    /// Of an index: each platform's manifest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    platforms: BTreeMap<String, Sha256Digest>,
    /// The file that `--export-image-tar` wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_tar: Option<PathBuf>,
    /// The project's wheel in `dist/`; null where the image or the DAG files alone were wanted.
    wheel: Option<PathBuf>,
    /// The project's tests; null if none were run.
    tests: Option<TestsDocument>,
    /// Names of files to the BLAKE3 of their bytes.
    dags: BTreeMap<String, ObjectDigest>,
}

pub(super) fn everything(context: &Context, arguments: &All) -> Result<Exit, CommandError> {
    let WithDags { build, dags } = &arguments.with_dags;
    let wanted = Wanted::Everything(dags, &arguments.export, arguments.tests);
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
    let wanted = Wanted::Image(&arguments.export);
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
    let build = Build::new(&workspace, &target, &open)?
        .with_options(arguments.image.options())
        .rebuilding(rebuild);
    caching.expect(&build)?;
    let (tests, image, platforms, image_tar, files) =
        context.block_on(caching.retry(async || {
            // First: what fails them is not built.
            let tests = match wanted {
                Wanted::Everything(.., tests) => test(context, &workspace, &build, *tests).await?,
                Wanted::Dags(_) | Wanted::Image(_) => None,
            };
            let needs_image = match wanted {
                Wanted::Everything(..) | Wanted::Image(_) => true,
                Wanted::Dags(arguments) => {
                    arguments.options().image_naming(&workspace) == ImageNaming::Digest
                }
            };
            if let Some(dags) = wanted.dags() {
                build.begin_dag_files(&dags.options()).await;
            }
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
            let several = image.as_ref().filter(|image| image.are_several());
            let platforms: BTreeMap<_, _> = several
                .into_iter()
                .flat_map(|image| image.images())
                .map(|one| (one.base().platform.to_string(), *one.digest()))
                .collect();
            let files = match wanted.dags() {
                None => Vec::new(),
                Some(dags) => {
                    let options = dags.options();
                    let by_digest = options.image_naming(&workspace) == ImageNaming::Digest;
                    let named = digest.as_ref().filter(|_| by_digest);
                    build.dag_files(&options, named).await?
                }
            };
            if let (Some(digest), Some(dags)) = (&digest, wanted.dags()) {
                let options = dags.options();
                build.record_inputs(&options, digest, &files).await?;
            }
            if wanted.checks() {
                let first = First {
                    workspace: &workspace,
                    build: &build,
                    image: image.as_ref(),
                    files: &files,
                };
                check(context, arguments, wanted.dags(), &first).await?;
            }
            Ok((tests, digest, platforms, image_tar, files))
        }))?;
    let wheel = match wanted {
        Wanted::Everything(..) => Some(build.package()?),
        Wanted::Dags(_) | Wanted::Image(_) => None,
    };
    build.keep(match wanted {
        Wanted::Everything(..) => "everything",
        Wanted::Dags(_) => "dags",
        Wanted::Image(_) => "image",
    })?;
    if !matches!(wanted, Wanted::Image(_)) {
        let folder = workspace.project().directory.join(".dags");
        write_folder(&folder, &files, &build.image_by_tag()?).map_err(BuildError::from)?;
    }
    caching.finish(Usage::Builds);
    let document = Document {
        environment: target.environment.to_string(),
        version: build.version().to_string(),
        image,
        platforms,
        image_tar,
        wheel,
        tests,
        dags: files.iter().map(named_digest).collect(),
    };
    let checked = match wanted.checks() {
        true => "built a second time from nothing: the same bytes\n",
        false => "",
    };
    context
        .printer
        .result(&document, || text(&document) + checked)?;
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
    for (platform, digest) in &document.platforms {
        text.push_str(&format!("  {platform} is {digest}\n"));
    }
    if let Some(path) = &document.wheel {
        text.push_str(&format!("wheel   {}\n", path.display()));
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
