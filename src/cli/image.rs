//! `forebay image plan`, `forebay image lock` and `forebay image base push`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::arguments::BuildArguments;
use super::context::Context;
use super::failure::pushing;
use super::migrate;
use super::services::LazyServices;
use crate::artifacts::{Build, BuildError};
use crate::image::{BaseImage, ImagePlan, PlannedLine};
use crate::oci::{Repository, Sha256Digest};
use crate::registry::{Access, Registry, push};
use crate::ui::{Colour, CommandError, Exit, Table};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what each line of the Dockerfile means; exits with 1 if one cannot be done
    #[command(
        after_help = "Writes forebay.lock if the base is not pinned there yet; builds nothing.\n\nExamples:\n  forebay image plan -c dev"
    )]
    Plan(BuildArguments),
    /// Ask registry and package index anew what base image and requirements mean, and pin the answers in forebay.lock
    #[command(
        after_help = "Writes forebay.lock; commit it. Builds nothing.\n\nExamples:\n  forebay image lock -c dev"
    )]
    Lock(BuildArguments),
    /// The base with what the Dockerfile's lines in containers make of it
    #[command(subcommand)]
    Base(BaseCommand),
    /// Print the section of pyproject.toml that says what the Dockerfile says
    Migrate(migrate::Arguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum BaseCommand {
    /// Run the lines that need a container, push the result, and note it in forebay.lock: builds elsewhere then need no engine
    Push(BasePush),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Writes the image to the repository, and its name into forebay.lock.\n\nExamples:\n  forebay image base push -c prod\n  forebay image base push --to host/team/base"
)]
pub(super) struct BasePush {
    #[command(flatten)]
    build: BuildArguments,

    /// Push to this repository [default: the environment's docker_repository]
    #[arg(long, value_name = "REPOSITORY")]
    to: Option<String>,

    /// Run the lines again, though nothing that they are given has changed
    #[arg(long)]
    rebuild: bool,
}

/// What `plan --json` prints (`schema/image-plan.schema.json`).
#[derive(Debug, Serialize)]
struct PlanDocument {
    base: BaseDocument,
    /// What would run the lines of class `engine`; null if there are none, or no engine works.
    engine: Option<String>,
    lines: Vec<LineDocument>,
    /// The same for the other platforms, if the image is built for several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<PlatformDocument>,
}

/// Base and lines for a further platform.
#[derive(Debug, Serialize)]
struct PlatformDocument {
    base: BaseDocument,
    lines: Vec<LineDocument>,
}

/// What the image stands on.
#[derive(Debug, Serialize)]
struct BaseDocument {
    /// Null for `scratch`.
    image: Option<String>,
    digest: Option<Sha256Digest>,
    platform: String,
    /// For example `3.11`.
    python: String,
    /// Whether the environment's settings put it in the place of FROM's.
    replaced: bool,
}

/// What `base push --json` prints (`schema/image-base.schema.json`).
#[derive(Debug, Serialize)]
struct PushedDocument {
    /// Null if no line needs a container.
    image: Option<String>,
    digest: Option<Sha256Digest>,
}

#[derive(Debug, PartialEq, Serialize)]
struct LineDocument {
    /// Where the instruction begins, counted from 1.
    line: usize,
    /// `native`, `no-op`, `engine` or `error`.
    class: &'static str,
    text: String,
    reason: String,
}

/// What `lock --json` prints (`schema/image-lock.schema.json`).
#[derive(Debug, Serialize)]
struct LockDocument {
    /// The base as the Dockerfile names it; null for `scratch`.
    image: Option<String>,
    /// Its manifest; of several platforms the first one's.
    digest: Option<Sha256Digest>,
    /// Each platform's manifest of the base; none for `scratch`.
    platforms: BTreeMap<String, Sha256Digest>,
    /// How many wheels the requirements come to, on all platforms together.
    wheels: usize,
}

pub(super) fn run(context: &Context, command: &Command) -> Result<Exit, CommandError> {
    let arguments = match command {
        Command::Plan(arguments) | Command::Lock(arguments) => arguments,
        Command::Base(BaseCommand::Push(push)) => &push.build,
        Command::Migrate(arguments) => return migrate::run(context, arguments),
    };
    let workspace = context.workspace()?;
    let (target, services) = LazyServices::of_build(&workspace, arguments)?;
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?.with_options(arguments.image.options());
    match command {
        Command::Plan(_) => plan(context, &build),
        Command::Lock(_) | Command::Migrate(_) => lock(context, &build),
        Command::Base(BaseCommand::Push(push)) => {
            let repository = match &push.to {
                Some(text) => text.parse().map_err(|source| BuildError::Repository {
                    environment: target.environment.to_string(),
                    source,
                })?,
                None => target.repository()?,
            };
            let build = build.rebuilding(push.rebuild);
            let directory = target.project_directory();
            let opened =
                services.registry(&repository.clone().relative_to(directory), Access::Push);
            let registry = opened.map_err(BuildError::from)?;
            push_base(context, &build, &repository, registry.as_ref())
        }
    }
}

fn push_base(
    context: &Context,
    build: &Build<'_>,
    repository: &Repository,
    registry: &dyn Registry,
) -> Result<Exit, CommandError> {
    let pushed = context.block_on(async {
        let Some(base) = build.publishable_base().await? else {
            return Ok(None);
        };
        let image = build.to_push(&base.image)?;
        let tags = [base.tag.clone()];
        let progress = build.progress();
        push(registry, &image, &tags, None, progress)
            .await
            .map_err(|error| pushing(&error))?;
        build.lock_published(&base, repository)?;
        Ok(Some(base))
    })?;
    let document = PushedDocument {
        image: pushed
            .as_ref()
            .map(|base| format!("{repository}:{}", base.tag)),
        digest: pushed.as_ref().map(|base| *base.image.digest()),
    };
    context.printer.result(&document, || match &document {
        PushedDocument {
            image: Some(image),
            digest: Some(digest),
        } => format!("{image} is {digest}; commit forebay.lock, which names it\n"),
        _ => "no line of the Dockerfile needs a container: there is nothing to push\n".to_owned(),
    })?;
    Ok(Exit::Done)
}

fn plan(context: &Context, build: &Build<'_>) -> Result<Exit, CommandError> {
    let plans = context.block_on(async { Ok(build.image_plans().await?) })?;
    let needs_engine = |(plan, _): &(&ImagePlan, &BaseImage)| plan.engine_lines().next().is_some();
    let needs_engine = plans.iter().any(needs_engine);
    let engine = match needs_engine {
        true => build.engine()?,
        false => None,
    };
    let mut documents = plans.iter().map(|(plan, base)| PlatformDocument {
        base: base_document(base, build.replaced_base()),
        lines: plan.lines.iter().map(line_document).collect(),
    });
    let Some(PlatformDocument { base, lines }) = documents.next() else {
        return Ok(Exit::Done);
    };
    let document = PlanDocument {
        base,
        engine: engine.map(|engine| format!("{} {}", engine.program.as_str(), engine.version)),
        lines,
        others: documents.collect(),
    };
    let width = context.printer.width();
    context.printer.result(&document, || {
        let mut text = document.base.text();
        for other in &document.others {
            text.push_str(&other.base.text());
        }
        if needs_engine {
            let engine = document.engine.as_deref().unwrap_or("none works here");
            text.push_str(&format!("engine {engine}\n"));
        }
        text.push_str(&table(&document.lines, width));
        for other in &document.others {
            if other.lines != document.lines {
                let platform = &other.base.platform;
                text.push_str(&format!("\non {platform}\n{}", table(&other.lines, width)));
            }
        }
        text
    })?;
    let impossible = plans.iter().any(|(plan, _)| plan.errors().next().is_some());
    Ok(if impossible { Exit::Failed } else { Exit::Done })
}

fn base_document(base: &BaseImage, replaced: Option<&str>) -> BaseDocument {
    let own = || {
        let repository = base.repository.as_ref().map(ToString::to_string);
        base.name.clone().or(repository)
    };
    BaseDocument {
        image: replaced.map(str::to_owned).or_else(own),
        digest: base.manifest,
        platform: base.platform.to_string(),
        python: format!("{}.{}", base.python.major, base.python.minor),
        replaced: replaced.is_some(),
    }
}

impl BaseDocument {
    fn text(&self) -> String {
        format!(
            "base {}{}, Python {}, {}\n",
            self.image.as_deref().unwrap_or("scratch"),
            if self.replaced {
                " (from the environment's settings)"
            } else {
                ""
            },
            self.python,
            self.platform,
        )
    }
}

fn line_document(line: &PlannedLine) -> LineDocument {
    LineDocument {
        line: line.line,
        class: line.class.as_str(),
        text: line.text.clone(),
        reason: line.reason.clone(),
    }
}

fn table(lines: &[LineDocument], width: Option<usize>) -> String {
    let mut table = Table::new(["LINE", "HOW", "INSTRUCTION", "WHY"]);
    for line in lines {
        table.row([
            line.line.to_string(),
            class(line.class),
            shorten(&line.text),
            line.reason.clone(),
        ]);
    }
    table.render(width)
}

/// `engine` costs something, `error` cannot be built.
fn class(class: &str) -> String {
    match class {
        "engine" => Colour::Warning.paint(class),
        "error" => Colour::Bad.paint(class),
        _ => class.to_owned(),
    }
}

/// An instruction may go on for many lines; its beginning is enough to find it.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 48;
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LONGEST {
        return line;
    }
    line.chars().take(LONGEST - 1).chain(['…']).collect()
}

fn lock(context: &Context, build: &Build<'_>) -> Result<Exit, CommandError> {
    let (bases, wheels) = context.block_on(async {
        let bases = build.lock_base().await?;
        Ok((bases, build.lock_requirements().await?))
    })?;
    let first = bases.first();
    let digests = bases.iter().filter_map(|(_, base)| {
        let digest = base.manifest?;
        Some((base.platform.to_string(), digest))
    });
    let document = LockDocument {
        image: first.map(|(reference, _)| reference.to_string()),
        digest: first.and_then(|(_, base)| base.manifest),
        platforms: digests.collect(),
        wheels,
    };
    let wheels = match wheels {
        0 => "there are no requirements".to_owned(),
        wheels => format!("the requirements are {}", crate::ui::count(wheels, "wheel")),
    };
    context.printer.result(&document, || {
        let image = document.image.as_deref().unwrap_or_default();
        let several = document.platforms.len() > 1;
        let mut text = String::new();
        for (platform, digest) in &document.platforms {
            let on = if several {
                format!(" on {platform}")
            } else {
                String::new()
            };
            text.push_str(&format!("{image}{on} is {digest}\n"));
        }
        format!("{text}{wheels}\n")
    })?;
    Ok(Exit::Done)
}
