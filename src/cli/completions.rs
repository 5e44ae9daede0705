//! `forebay completions SHELL`

use clap::{Args, CommandFactory as _, ValueHint};
use clap_complete::Shell;

use super::context::Context;
use crate::ui::{CommandError, Exit};

/// Print a script that completes commands and flags in your shell.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing but to the standard output.\n\nExamples:\n  source <(forebay completions bash)\n  forebay completions zsh > ~/.zfunc/_forebay\n  forebay completions fish > ~/.config/fish/completions/forebay.fish"
)]
pub(super) struct Arguments {
    /// The shell
    #[arg(value_enum, value_hint = ValueHint::Other)]
    shell: Shell,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "forebay", &mut script);
    context.printer.bytes(&script)?;
    Ok(Exit::Done)
}
