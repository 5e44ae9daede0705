//! Arguments that nobody knows. BigFlow ignores them, and scripts that were written for it may
//! carry some; so its own commands go on with a warning. The others refuse: there, what is not
//! understood can only be a slip.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Error, Parser};

/// The commands that BigFlow has.
const OF_BIGFLOW: [&str; 14] = [
    "build",
    "build-dags",
    "build-image",
    "build-package",
    "build-requirements",
    "deploy",
    "deploy-dags",
    "deploy-image",
    "logs",
    "project-version",
    "pv",
    "release",
    "run",
    "start-project",
];

/// What asks for less than the command does. To do all of it instead would be worse than to fail.
const HOLDS_BACK: [&str; 4] = ["--dry-run", "-n", "--check", "--help"];

/// A command line that was understood.
pub(super) struct Parsed<Arguments> {
    pub(super) arguments: Arguments,
    /// What was left out of it.
    pub(super) ignored: Vec<String>,
    /// The environment that it names with `-c`.
    pub(super) environment: Option<String>,
}

/// Parses the command line.
///
/// # Errors
/// What clap says.
pub(super) fn parse<Arguments: Parser>(
    mut given: Vec<OsString>,
) -> Result<Parsed<Arguments>, Error> {
    let mut ignored = Vec::new();
    loop {
        let matches = Arguments::command().try_get_matches_from(&given);
        let error = match matches {
            Ok(matches) => {
                return Ok(Parsed {
                    arguments: Arguments::from_arg_matches(&matches)?,
                    ignored,
                    environment: environment(&matches),
                });
            }
            Err(error) => error,
        };
        let Some(place) = unknown_place(&error, &given) else {
            return Err(error);
        };
        ignored.push(given.remove(place).to_string_lossy().into_owned());
    }
}

fn environment(matches: &ArgMatches) -> Option<String> {
    match matches.subcommand() {
        Some((_, inner)) => environment(inner),
        None => matches.try_get_one::<String>("config").ok()?.cloned(),
    }
}

/// Where the unknown argument stands, if it may be left out.
fn unknown_place(error: &Error, given: &[OsString]) -> Option<usize> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    // clap has a likely meaning for a slip; whoever made it wants to know.
    let is_slip = error.get(ContextKind::SuggestedArg).is_some();
    if error.kind() != ErrorKind::UnknownArgument
        || is_slip
        || HOLDS_BACK.contains(&unknown.as_str())
    {
        return None;
    }
    let text = |argument: &OsString| argument.to_str().map(str::to_owned);
    let command = given.iter().skip(1).position(|argument| {
        text(argument).is_some_and(|text| OF_BIGFLOW.contains(&text.as_str()))
    })? + 1;
    let is_it = |argument: &OsString| {
        text(argument).is_some_and(|text| {
            text == *unknown
                || text
                    .split_once('=')
                    .is_some_and(|(name, _)| name == unknown)
        })
    };
    let place = given.iter().skip(command + 1).position(is_it)?;
    Some(command + 1 + place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Subcommand};

    #[derive(Debug, Parser)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Debug, Subcommand)]
    enum Command {
        Deploy(Deploy),
        Rollback(Deploy),
    }

    #[derive(Debug, Args)]
    struct Deploy {
        #[arg(short, long)]
        config: Option<String>,
        #[arg(long)]
        restore_drift: bool,
    }

    fn ignored(line: &str) -> Result<Vec<String>, Error> {
        let given = line.split(' ').map(OsString::from).collect();
        parse::<Program>(given).map(|parsed| parsed.ignored)
    }

    #[test]
    fn bigflows_commands_go_on_without_what_nobody_knows() {
        assert_eq!(ignored("forebay deploy -c dev").unwrap(), [""; 0]);
        assert_eq!(
            ignored("forebay deploy --colour red -c dev --level=3").unwrap(),
            ["--colour", "red", "--level=3"]
        );
    }

    #[test]
    fn slips_and_what_holds_back_are_refused_and_so_is_all_that_bigflow_has_not() {
        assert!(ignored("forebay deploy --restore-drif").is_err());
        assert!(ignored("forebay deploy --dry-run").is_err());
        assert!(ignored("forebay rollback --colour").is_err());
        assert!(ignored("forebay deploy -c").is_err());
    }
}
