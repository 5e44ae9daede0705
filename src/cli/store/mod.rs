//! `forebay store …`: looking into this machine's store. One file a command.

mod archive;
mod cat;
mod ls;
mod object;
mod put;
mod rebuild_index;
mod scan;
mod stats;
mod verify;
mod why;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use forebay_store::RootName;

use super::context::Context;
use crate::ui::{CommandError, Exit};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Digest every file of a folder; files that did not change since the last scan are not read
    Scan {
        /// The folder
        folder: PathBuf,
    },
    /// Put a file into the store, and print its digest
    Put {
        /// The file; - is the standard input
        file: PathBuf,
        /// Keep it under this name; otherwise the next `forebay gc` may condemn it
        #[arg(long, value_name = "NAME")]
        root: Option<RootName>,
    },
    /// Write an object's bytes, verified, to the standard output
    Cat {
        #[command(flatten)]
        object: object::ObjectArgument,
    },
    /// List every object
    Ls,
    /// Count what is in the store
    Stats,
    /// Read everything, and name what is missing, corrupt or orphaned
    ///
    /// What is corrupt is moved to corrupt/ and forgotten: the next build makes it anew.
    /// The exit status is a sum: 16 something is missing, 32 corrupt, 64 orphaned.
    /// Orphans are what killed processes left; `forebay gc` removes them.
    Verify(verify::VerifyArguments),
    /// Say why an object is in the store: the path from a root
    Why {
        #[command(flatten)]
        object: object::ObjectArgument,
    },
    /// Make the index anew from objects and records alone
    RebuildIndex,
    /// Write an artifact with all it needs into one file
    Export {
        /// A root (build/shop/dev/everything), a recipe, or an object with all that was made with it
        artifact: String,
        /// The file
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Take in what `export` has written
    Import {
        /// The file
        file: PathBuf,
        /// Keep it under this name; otherwise the next `forebay gc` may condemn it
        #[arg(long, value_name = "NAME")]
        root: Option<RootName>,
    },
}

pub(in crate::cli) fn run(context: &Context, command: &Command) -> Result<Exit, CommandError> {
    let store = context.store()?;
    match command {
        Command::Scan { folder } => scan::scan(context, &store, folder)?,
        Command::Put { file, root } => put::put(context, &store, file, root.as_ref())?,
        Command::Cat { object } => cat::cat(context, &store, object)?,
        Command::Ls => ls::list(context, &store)?,
        Command::Stats => stats::stats(context, &store)?,
        Command::Verify(arguments) => return verify::verify(context, &store, arguments),
        Command::Why { object } => why::why(context, &store, object)?,
        Command::RebuildIndex => rebuild_index::rebuild(context, &store)?,
        Command::Export { artifact, output } => {
            archive::export(context, &store, artifact, output)?;
        }
        Command::Import { file, root } => {
            archive::import(context, &store, file, root.as_ref())?;
        }
    }
    Ok(Exit::Done)
}

/// A path as the user means it: from the folder that the command works in.
fn at(context: &Context, path: &Path) -> PathBuf {
    context.directory().join(path)
}
