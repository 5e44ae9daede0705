//! `forebay cache status`

use clap::Args;
use serde::Serialize;

use super::opening::Opening;
use crate::cli::arguments::BuildArguments;
use crate::cli::caching::cache_options;
use crate::cli::context::Context;
use crate::ui::{CommandError, Exit};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing.\n\nExamples:\n  forebay cache status --cache gs://bucket/cache"
)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    build: BuildArguments,
}

/// What `--json` prints (`schema/cache-status.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    caches: Vec<CacheDocument>,
    /// Whether what is built is brought to one of them.
    writes: bool,
    trusted_keys: Vec<String>,
    /// Whether a cache has a build of these very sources.
    found: bool,
    /// What was wrong; null if nothing was.
    warning: Option<String>,
}

#[derive(Debug, Serialize)]
struct CacheDocument {
    url: String,
    /// `signed`, `unsigned` or `nothing`: which entries count.
    trust: &'static str,
    /// Whether what is built is brought there.
    written: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let opening = Opening::new(context, &arguments.build, &arguments.build.cache)?;
    let Opening {
        workspace, cache, ..
    } = &opening;
    let options = cache_options(workspace, &arguments.build.cache)?;
    let root = workspace.store().root();
    let caches = options.locations.iter().map(|location| CacheDocument {
        url: location.to_string(),
        trust: options.trust(location, root).as_str(),
        written: cache.written() == Some(location),
    });
    let caches: Vec<_> = caches.collect();
    let own = options.signing_key.iter().map(|key| key.public());
    let trusted = options.trusted.iter().chain(own);
    let mut trusted_keys: Vec<_> = trusted.map(ToString::to_string).collect();
    trusted_keys.dedup();

    let open = opening.services.opener();
    let _build = opening.build(&open)?;
    let found = cache.look(workspace.store());
    let document = Document {
        caches,
        writes: cache.writes(),
        trusted_keys,
        found,
        warning: cache.warning(),
    };
    context.printer.result(&document, || text(&document))?;
    Ok(Exit::Done)
}

fn text(document: &Document) -> String {
    let mut text = String::new();
    for cache in &document.caches {
        let believed = match cache.trust {
            "signed" => "what trusted keys have signed is taken from it",
            "unsigned" => "everything is taken from it, signed or not",
            _ => "nothing is taken from it, because no key is trusted",
        };
        let written = match cache.written {
            true => "; what is built here is brought to it",
            false => "",
        };
        text.push_str(&format!("{}\n  {believed}{written}\n", cache.url));
    }
    for key in &document.trusted_keys {
        text.push_str(&format!("trusted key {key}\n"));
    }
    text.push_str(match document.found {
        true => "a build of these sources is there\n",
        false => "no build of these sources is there\n",
    });
    if let Some(warning) = &document.warning {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}
