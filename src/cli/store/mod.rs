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
use forebay_store::{RootName, Store, StoreError};

use super::context::Context;
use crate::ui::{CommandError, Exit};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Digest every file of a folder; files that did not change since the last scan are not read
    #[command(
        after_help = "Writes the digests into the store, so that an unchanged file is not read again.\n\nExamples:\n  forebay store scan ."
    )]
    Scan {
        /// The folder
        folder: PathBuf,
    },
    /// Put a file into the store, and print its digest
    #[command(
        after_help = "Writes the file into the store.\n\nExamples:\n  forebay store put model.bin --root pinned/model"
    )]
    Put {
        /// The file; - is the standard input
        file: PathBuf,
        /// Keep it under this name; otherwise the next `forebay gc` may condemn it
        #[arg(long, value_name = "NAME")]
        root: Option<RootName>,
    },
    /// Write an object's bytes, verified, to the standard output
    #[command(
        after_help = "Writes nothing but to the standard output.\n\nExamples:\n  forebay store cat 0123456789abcdef…"
    )]
    Cat {
        #[command(flatten)]
        object: object::ObjectArgument,
    },
    /// List every object
    #[command(
        after_help = "Writes nothing.\n\nExamples:\n  forebay store ls\n  forebay store ls --json"
    )]
    Ls,
    /// Count what is in the store
    #[command(after_help = "Writes nothing.\n\nExamples:\n  forebay store stats")]
    Stats,
    /// Read everything, and name what is missing, corrupt or orphaned
    ///
    /// What is corrupt is moved to corrupt/ and forgotten: the next build makes it anew.
    /// The exit status is a sum: 16 something is missing, 32 corrupt, 64 orphaned.
    /// Orphans are what killed processes left; `forebay gc` removes them.
    #[command(
        after_help = "Moves what is corrupt to corrupt/ in the store; writes nothing else.\n\nExamples:\n  forebay store verify"
    )]
    Verify(verify::VerifyArguments),
    /// Say why an object is in the store: the path from a root
    #[command(after_help = "Writes nothing.\n\nExamples:\n  forebay store why 0123456789abcdef…")]
    Why {
        #[command(flatten)]
        object: object::ObjectArgument,
    },
    /// Make the index anew from objects and records alone
    #[command(
        after_help = "Writes the index, and reads everything else in the store.\n\nExamples:\n  forebay store rebuild-index"
    )]
    RebuildIndex,
    /// Write an artifact with all it needs into one file
    #[command(
        after_help = "Writes one file.\n\nExamples:\n  forebay store export build/shop/dev/everything -o shop.pack"
    )]
    Export {
        /// A root (build/shop/dev/everything), a recipe, or an object with all that was made with it
        artifact: String,
        /// The file
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Take in what `export` has written
    #[command(
        after_help = "Writes what the file has into the store.\n\nExamples:\n  forebay store import shop.pack --root build/shop/dev/everything"
    )]
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

/// The error of a file that the user named, with what to do about that; another as it is.
fn about_named(store: &Store, next: &'static str) -> impl Fn(StoreError) -> CommandError {
    move |error| match &error {
        StoreError::Io { path, .. } if !path.starts_with(store.root()) => {
            CommandError::from_error(Exit::Usage, &error).next(next)
        }
        _ => error.into(),
    }
}
