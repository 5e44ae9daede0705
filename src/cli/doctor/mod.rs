//! `forebay doctor`: looks at everything that a deploy relies on, before one does.

mod environment;
mod finding;
mod login;
mod machine;

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::arguments::EnvironmentArguments;
use super::context::Context;
use super::opened::{Opened, Permissions};
use crate::artifacts::Build;
use crate::ui::{Colour, CommandError, Exit, count, in_environment, wrap_after};
use environment::{bucket, registry};
use finding::{Finding, Verdict};
use login::logins;
use machine::{engine, format, python};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes two things, which nobody sees: an object beside the environment's records, which it deletes again, and a blob of two bytes in the registry. Nothing in dags/ is touched.\n\nExamples:\n  forebay doctor -c prod\n  forebay doctor -c prod --json"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    environment: EnvironmentArguments,
}

/// What `--json` prints (`schema/doctor.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    /// Whether a deploy can work.
    healthy: bool,
    findings: Vec<Finding>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let Opened {
        target,
        services,
        environment,
    } = Opened::new(&workspace, &arguments.environment, Permissions::default())?;
    let mut findings = vec![python(&workspace), format(&workspace)];
    let open = services.opener();
    let build = Build::new(&workspace, &target, &open)?;
    context.block_on(async {
        findings.push(engine(&build).await);
        findings.extend(logins(&services, &target).await);
        findings.extend(bucket(&environment).await);
        findings.push(registry(&environment).await);
        Ok(())
    })?;
    let worst = findings
        .iter()
        .find(|finding| finding.verdict == Verdict::Bad)
        .map_or(Exit::Done, |finding| finding.exit);
    let environment = target.environment.to_string();
    for remedy in findings
        .iter_mut()
        .filter_map(|finding| finding.remedy.as_mut())
    {
        *remedy = in_environment(remedy, &environment);
    }
    let document = Document {
        environment,
        healthy: worst == Exit::Done,
        findings,
    };
    context
        .printer
        .result(&document, || text(&document, context.printer.width()))?;
    Ok(worst)
}

fn text(document: &Document, width: Option<usize>) -> String {
    const INDENT: usize = 19;
    let mut text = String::new();
    for finding in &document.findings {
        let mark = match finding.verdict {
            Verdict::Good => Colour::Good.paint(&format!("{:<8}", "ok")),
            Verdict::Warning => Colour::Warning.paint(&format!("{:<8}", "warning")),
            Verdict::Bad => Colour::Bad.paint(&format!("{:<8}", "BAD")),
        };
        let says = wrap_after(&finding.says, width, INDENT);
        let _ = writeln!(text, "{mark} {:<9} {says}", finding.about);
        if let Some(remedy) = &finding.remedy {
            let remedy = wrap_after(remedy, width, INDENT);
            let _ = writeln!(text, "{:INDENT$}{}", "", Colour::Next.paint(&remedy));
        }
    }
    let of = |verdict| {
        let findings = document.findings.iter();
        findings
            .filter(|finding| finding.verdict == verdict)
            .count()
    };
    let _ = match (of(Verdict::Bad), of(Verdict::Warning)) {
        (0, 0) => writeln!(text, "{}: a deploy can work", document.environment),
        (0, warnings) => writeln!(
            text,
            "{}: a deploy can work; {}",
            document.environment,
            count(warnings, "warning")
        ),
        (bad, _) => writeln!(
            text,
            "{}: a deploy would fail: {}",
            document.environment,
            count(bad, "finding")
        ),
    };
    text
}
