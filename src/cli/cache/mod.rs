//! `forebay cache`

mod gc;
mod keygen;
mod opening;
mod pull;
mod push;
mod status;

use clap::Subcommand;

use super::context::Context;
use crate::ui::{CommandError, Exit};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Build what is not built, and bring all of it to the cache
    Push(push::Arguments),
    /// Take everything of this build from the cache, so that it can be used without it
    Pull(pull::Arguments),
    /// Show the caches, who is believed, and whether they have these sources
    Status(status::Arguments),
    /// Delete from the cache what is old, and what nothing names
    Gc(gc::Arguments),
    /// Make a key to sign entries with
    Keygen(keygen::Arguments),
}

pub(super) fn run(context: &Context, command: &Command) -> Result<Exit, CommandError> {
    match command {
        Command::Push(arguments) => push::run(context, arguments),
        Command::Pull(arguments) => pull::run(context, arguments),
        Command::Status(arguments) => status::run(context, arguments),
        Command::Gc(arguments) => gc::run(context, arguments),
        Command::Keygen(arguments) => keygen::run(context, arguments),
    }
}
