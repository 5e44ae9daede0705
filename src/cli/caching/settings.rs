//! What flags, variables and the project's settings say of caches.

use std::time::Duration;

use crate::artifacts::Workspace;
use crate::cache::{CacheLocation, CacheOptions, Patience, SigningKey, TrustedKey};
use crate::cli::arguments::CacheArguments;
use crate::ui::{CommandError, Exit};

/// The variables that say what the flags do not.
pub(super) const LOCATIONS: &str = "FOREBAY_CACHE";
pub(super) const TRUSTED: &str = "FOREBAY_CACHE_TRUSTED_KEYS";
pub(super) const SIGNING_KEY: &str = "FOREBAY_CACHE_SIGNING_KEY";
pub(super) const SIGNING_KEY_FILE: &str = "FOREBAY_CACHE_SIGNING_KEY_FILE";
const UNSIGNED: &str = "FOREBAY_CACHE_UNSIGNED";
const TIMEOUT: &str = "FOREBAY_CACHE_TIMEOUT";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
}

/// What flags, variables and the project's settings say together.
pub(in crate::cli) fn cache_options(
    workspace: &Workspace,
    arguments: &CacheArguments,
) -> Result<CacheOptions, CommandError> {
    let settings = workspace.project().settings.cache.clone();
    let given = variable(LOCATIONS);
    let (texts, source): (Vec<&str>, _) = match (&given, arguments.cache.is_empty()) {
        (_, false) => (
            arguments.cache.iter().map(String::as_str).collect(),
            "--cache",
        ),
        (Some(given), true) => (words(given).collect(), LOCATIONS),
        (None, true) => (
            settings.urls.iter().map(String::as_str).collect(),
            "pyproject.toml",
        ),
    };
    let locations = texts
        .into_iter()
        .map(|text| location(workspace, text, source))
        .collect::<Result<Vec<_>, _>>()?;
    // The variable replaces the file: a release job names its own keys, whatever a commit says.
    let keys = variable(TRUSTED);
    let keys: Vec<&str> = match &keys {
        Some(keys) => words(keys).collect(),
        None => settings.trusted_keys.iter().map(String::as_str).collect(),
    };
    let trusted = keys
        .into_iter()
        .map(str::parse::<TrustedKey>)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            CommandError::from_error(Exit::Usage, &error).next(format!(
                "mend ${TRUSTED} or [tool.forebay.cache] trusted_keys"
            ))
        })?;
    Ok(CacheOptions {
        locations,
        trusted,
        signing_key: signing_key()?,
        unsigned: arguments.cache_unsigned
            || variable(UNSIGNED).is_some_and(|value| value == "1" || value == "true"),
        write: arguments.cache_write,
        is_ci: variable("CI").is_some_and(|value| !value.is_empty() && value != "false"),
    })
}

/// A cache's place. A password is taken from the variable alone: what is written in the project
/// is there for all to read, and so is a command line.
fn location(
    workspace: &Workspace,
    text: &str,
    source: &str,
) -> Result<CacheLocation, CommandError> {
    let location: CacheLocation = text.parse().map_err(|error| {
        CommandError::from_error(Exit::Usage, &error)
            .next("mend --cache, $FOREBAY_CACHE or [tool.forebay] cache")
    })?;
    if location.login().is_some() && source != LOCATIONS {
        return Err(CommandError::new(
            Exit::Usage,
            format!("the cache {location} stands in {source} with a user and a password"),
        )
        .why("others can read them there")
        .next(format!(
            "write them into ~/.netrc (machine HOST login USER password PASSWORD), or name the cache in ${LOCATIONS}"
        )));
    }
    Ok(location.relative_to(&workspace.project().directory))
}

/// How long an answer is waited for.
pub(super) fn patience() -> Result<Patience, CommandError> {
    match variable(TIMEOUT) {
        None => Ok(Patience::default()),
        Some(text) => match text.parse() {
            Ok(seconds @ 1..=600) => Ok(Patience::of_build(Duration::from_secs(seconds))),
            _ => Err(
                CommandError::new(Exit::Usage, format!("{TIMEOUT} is {text:?}"))
                    .next("give a number of seconds from 1 to 600, or unset it"),
            ),
        },
    }
}

/// The private key, from a variable or from the file that a variable names.
fn signing_key() -> Result<Option<SigningKey>, CommandError> {
    let is_set = |text: &String| !text.trim().is_empty();
    let text = match variable(SIGNING_KEY).filter(is_set) {
        Some(text) => Some(text),
        None => match variable(SIGNING_KEY_FILE).filter(is_set) {
            Some(path) => Some(std::fs::read_to_string(&path).map_err(|error| {
                CommandError::new(
                    Exit::Usage,
                    format!("the signing key {path} cannot be read"),
                )
                .why(error.to_string())
                .next(format!("mend or unset ${SIGNING_KEY_FILE}"))
            })?),
            None => None,
        },
    };
    text.map(|text| SigningKey::parse(&text))
        .transpose()
        .map_err(|error| {
            CommandError::from_error(Exit::Usage, &error)
                .next("make one with `forebay cache keygen FILE`")
        })
}
