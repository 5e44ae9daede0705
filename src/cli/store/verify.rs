//! `forebay store verify`.

use clap::Args;
use forebay_store::{Store, VerifyOptions, VerifyReport};

use crate::cli::context::Context;
use crate::ui::{CommandError, Exit, bytes, count};

#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArguments {
    /// Go on where an interrupted verification was
    #[arg(long)]
    resume: bool,
    /// How many threads read [default: one a processor]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
}

pub(super) fn verify(
    context: &Context,
    store: &Store,
    arguments: &VerifyArguments,
) -> Result<Exit, CommandError> {
    let report = store.verify(&VerifyOptions {
        threads: arguments.threads,
        resume: arguments.resume,
    })?;
    context.printer.result(&report, || verify_text(&report))?;
    let bit = |found: bool, bit: u8| if found { bit } else { 0 };
    let bits = bit(!report.missing.is_empty(), 16)
        | bit(
            !report.corrupt.is_empty() || !report.damaged_packs.is_empty(),
            32,
        )
        | bit(!report.orphaned.is_empty(), 64);
    Ok(match bits {
        0 => Exit::Done,
        bits => Exit::Findings(bits),
    })
}

fn verify_text(report: &VerifyReport) -> String {
    let mut text = String::new();
    for digest in &report.missing {
        text.push_str(&format!("missing   {digest}\n"));
    }
    for digest in &report.corrupt {
        text.push_str(&format!("corrupt   {digest}\n"));
    }
    for path in &report.damaged_packs {
        text.push_str(&format!("corrupt   {}\n", path.display()));
    }
    for path in &report.orphaned {
        text.push_str(&format!("orphaned  {}\n", path.display()));
    }
    text.push_str(&format!(
        "{} intact, {}\n",
        count(
            usize::try_from(report.objects).unwrap_or(usize::MAX),
            "object"
        ),
        bytes(report.bytes)
    ));
    if !report.is_intact() {
        text.push_str("what is damaged was moved aside; the next build or fetch puts it back\n");
    }
    text
}
