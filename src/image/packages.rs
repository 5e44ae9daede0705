//! The package managers of base images: which of their commands change nothing in an image
//! that installs no system package, and which lines are only about system packages.

use super::dockerfile::expand_words;
use super::run::{Effect, Surroundings, assigned, resolve_path, split_commands, unknown_variable};

/// Options of apt and apk that have a value in the next word.
const OPTIONS_WITH_VALUES: [&str; 8] = [
    "--option",
    "--repository",
    "--target-release",
    "--virtual",
    "-X",
    "-o",
    "-t",
    "-c",
];

/// Places where package managers, and nobody else, keep what they can do without.
const SCRATCH: [&str; 6] = [
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/cache/apk",
    "var/cache/debconf",
    "tmp",
    "var/tmp",
];

/// Whether `path` (in the image, without leading slash) is only scratch.
pub(super) fn is_scratch(path: &str) -> bool {
    SCRATCH.iter().any(|directory| {
        path.strip_prefix(directory)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The subcommand, and the words after it that are no options.
fn split(words: &[String]) -> (Option<&str>, Vec<&str>) {
    let mut operands = Vec::new();
    let mut words = words.iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        if OPTIONS_WITH_VALUES.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            operands.push(word);
        }
    }
    match operands.split_first() {
        Some((subcommand, rest)) => (Some(subcommand), rest.to_vec()),
        None => (None, Vec::new()),
    }
}

/// What a package manager's command does to an image without system packages of its own.
///
/// # Errors
/// Why it needs a container.
pub(super) fn effect(words: &[String]) -> Result<Effect, String> {
    let program = words.first().map(String::as_str).unwrap_or_default();
    let (subcommand, packages) = split(words);
    let Some(subcommand) = subcommand else {
        return Err(format!("{program} has no command"));
    };
    match subcommand {
        "update" => Ok(Effect::System("package lists are not part of the image")),
        "clean" | "autoclean" | "cache" => Ok(Effect::System("there is no package cache to clean")),
        "autoremove" => Ok(Effect::System(
            "nothing was installed that could be removed",
        )),
        "install" | "add" if packages.is_empty() => {
            Ok(Effect::System("it installs no system package"))
        }
        "install" | "add" => Err(format!(
            "it installs system packages ({})",
            packages.join(" ")
        )),
        other => Err(format!("`{program} {other}` changes the system")),
    }
}

fn is_plain_command(words: &[String]) -> bool {
    const SUBCOMMANDS: [&str; 13] = [
        "add",
        "autoclean",
        "autoremove",
        "cache",
        "clean",
        "del",
        "dist-upgrade",
        "full-upgrade",
        "install",
        "purge",
        "remove",
        "update",
        "upgrade",
    ];
    let (subcommand, packages) = split(words);
    // A path is a file that some other line may have brought.
    subcommand.is_some_and(|subcommand| SUBCOMMANDS.contains(&subcommand))
        && packages
            .iter()
            .all(|package| !package.contains('/') && !package.ends_with(".deb"))
}

/// Whether a shell line does nothing but tell apt or apk what to install or remove, so that
/// it comes to the same before and after files of the project are copied.
pub(super) fn is_package_line(line: &str, surroundings: &Surroundings<'_>) -> bool {
    let Ok(commands) = split_commands(line) else {
        return false;
    };
    let mut manages = false;
    for command in commands {
        let text = command.trim();
        if unknown_variable(text, surroundings.variables).is_some() {
            return false;
        }
        let Ok(words) = expand_words(text, surroundings.variables, '\\') else {
            return false;
        };
        let words: &[String] = &words;
        let start = words
            .iter()
            .position(|word| word != "env" && assigned(word).is_none())
            .unwrap_or(words.len());
        let words = words.get(start..).unwrap_or_default();
        let strings: Vec<&str> = words.iter().map(String::as_str).collect();
        match strings.as_slice() {
            [] | ["set" | "export" | "echo" | "true" | ":" | "ldconfig", ..] => {}
            ["apt-get" | "apt" | "apk", ..] if is_plain_command(words) => manages = true,
            ["rm", paths @ ..]
                if paths
                    .iter()
                    .filter(|path| !path.starts_with('-'))
                    .all(|path| is_scratch(&resolve_path(surroundings.directory, path))) => {}
            _ => return false,
        }
    }
    manages
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn is_package(line: &str) -> bool {
        let variables = BTreeMap::from([("EXTRA".to_owned(), "git curl".to_owned())]);
        is_package_line(
            line,
            &Surroundings {
                directory: "app",
                variables: &variables,
            },
        )
    }

    #[test]
    fn lines_of_package_managers_are_told_from_others() {
        for line in [
            "apt-get -y update && apt-get install -y libzbar-dev libc-dev musl-dev",
            "set -eux; export DEBIAN_FRONTEND=noninteractive; apt-get update; apt-get install -y --no-install-recommends gcc=4:12 && rm -rf /var/lib/apt/lists/* /tmp/*",
            "DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -y $EXTRA",
            "apk add --no-cache --virtual .deps gcc musl-dev",
            "apt-get update",
        ] {
            assert!(is_package(line), "{line}");
        }
        for line in [
            "apt-get install -y ./a.deb",
            "apt-get install -y gcc && pip install x",
            "apt-get install -y $(cat packages.txt)",
            "apt-get install -y $OTHER",
            "curl -O https://x.test/a && apt-get update",
            "rm -rf /app && apt-get update",
            "rm -rf /tmp/*",
            "apt-get source x",
            "echo deb http://x.test > /etc/apt/sources.list && apt-get update",
        ] {
            assert!(!is_package(line), "{line}");
        }
    }
}
