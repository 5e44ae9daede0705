//! A small grammar for the RUN lines that BigFlow projects end with. What it
//! does not know is never guessed: it needs a container, and is told why.

use std::collections::BTreeMap;

use super::dockerfile::expand_words;
use super::packages;
use super::pip_command::{pip_install, wheel_directory};

/// What one command of a RUN line does to the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing at all: it prints, or sets up the shell.
    Nothing(&'static str),
    /// Nothing that an image built without a container would have; a line that runs in
    /// a container may rely on it.
    System(&'static str),
    /// The same, for what concerns pip alone.
    Installer(&'static str),
    /// `pip install` of requirement files and requirements.
    Install {
        /// Requirement files, as paths in the image.
        files: Vec<String>,
        /// Constraint files, as paths in the image.
        constraints: Vec<String>,
        /// Requirements given on the command line, and index options, each as
        /// a line of a requirements file.
        lines: Vec<String>,
    },
    /// `pip install DIRECTORY/*.whl`.
    InstallWheels {
        /// The directory, as a path in the image.
        directory: String,
        /// Whether pip installs what the wheel requires, too.
        dependencies: bool,
    },
    /// `rm` of files that must not matter.
    Remove(Vec<String>),
}

/// Where a RUN line runs.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// WORKDIR, without the leading slash.
    pub directory: &'a str,
    /// ENV and ARG.
    pub variables: &'a BTreeMap<String, String>,
}

/// `path` as seen from `directory`, without leading slash, `.` and `..`.
pub(super) fn resolve_path(directory: &str, path: &str) -> String {
    let full = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{directory}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in full.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Splits a shell line at `&&` and `;`.
///
/// # Errors
/// Whatever else a shell knows: pipes, substitutions, redirections into files.
pub(super) fn split_commands(line: &str) -> Result<Vec<String>, String> {
    let mut commands = vec![String::new()];
    let mut quote: Option<char> = None;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '`' || (character == '$' && characters.peek() == Some(&'(')) {
            return Err("it substitutes a command's output".to_owned());
        }
        let Some(command) = commands.last_mut() else {
            break;
        };
        match (quote, character) {
            (Some(open), _) => {
                if character == open {
                    quote = None;
                }
                command.push(character);
            }
            (None, '"' | '\'') => {
                quote = Some(character);
                command.push(character);
            }
            (None, '&') if characters.next_if_eq(&'&').is_some() => commands.push(String::new()),
            (None, ';' | '\n') => commands.push(String::new()),
            (None, '>') => {
                let target: String = {
                    characters.next_if_eq(&'>');
                    while characters.next_if_eq(&' ').is_some() {}
                    std::iter::from_fn(|| {
                        characters.next_if(|c| !c.is_whitespace() && !";>|<".contains(*c))
                    })
                    .collect()
                };
                if !matches!(target.as_str(), "/dev/null" | "&1" | "&2") {
                    return Err("it writes a file".to_owned());
                }
                // `2>`: the descriptor's number is no word of the command.
                if command.ends_with(" 1") || command.ends_with(" 2") {
                    command.pop();
                }
            }
            (None, '|' | '<' | '(' | ')' | '&' | '{' | '}')
                if !(matches!(character, '{' | '}') && is_in_variable(command, character)) =>
            {
                return Err(format!("it uses the shell's {character:?}"));
            }
            (None, '#') if command.is_empty() || command.ends_with(' ') => {
                // A comment, up to the end of its line.
                if characters.by_ref().any(|c| c == '\n') {
                    commands.push(String::new());
                }
            }
            (None, other) => command.push(other),
        }
    }
    Ok(commands)
}

/// Whether a brace belongs to `${NAME}`.
fn is_in_variable(before: &str, brace: char) -> bool {
    match brace {
        '{' => before.ends_with('$'),
        _ => before
            .rsplit_once("${")
            .is_some_and(|(_, name)| name.chars().all(|c| c.is_alphanumeric() || c == '_')),
    }
}

/// Variables that change nothing of what a command leaves in the image.
const HARMLESS_VARIABLES: [&str; 14] = [
    "DEBCONF_NONINTERACTIVE_SEEN",
    "DEBIAN_FRONTEND",
    "LANG",
    "LC_ALL",
    "PIP_BREAK_SYSTEM_PACKAGES",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_DISABLE_PIP_VERSION_CHECK",
    "PIP_NO_CACHE_DIR",
    "PIP_NO_INPUT",
    "PIP_PROGRESS_BAR",
    "PIP_RETRIES",
    "PIP_ROOT_USER_ACTION",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
];

/// The name in front of `=`, if the word sets a variable for a command.
pub(super) fn assigned(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    let mut letters = name.chars();
    let starts_well = letters
        .next()
        .is_some_and(|c| c.is_alphabetic() || c == '_');
    (starts_well && letters.all(|c| c.is_alphanumeric() || c == '_')).then_some(name)
}

fn simple_command(words: &[String], directory: &str) -> Result<Vec<Effect>, String> {
    let mut words = words;
    if let [first, rest @ ..] = words
        && first == "env"
        && rest.first().is_some_and(|word| assigned(word).is_some())
    {
        words = rest;
    }
    while let [word, rest @ ..] = words
        && let Some(name) = assigned(word)
    {
        if !HARMLESS_VARIABLES.contains(&name) {
            return Err(format!("it sets the variable {name} for a command"));
        }
        words = rest;
    }
    let strings: Vec<&str> = words.iter().map(String::as_str).collect();
    let is_program = |word: &str, program: &str| {
        let word = word.rsplit('/').next().unwrap_or_default();
        word.strip_prefix(program)
            .is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
    };
    let python = |word: &str| is_program(word, "python");
    let pip = |word: &str| is_program(word, "pip");
    let tail = |count: usize| words.get(count..).unwrap_or_default();
    let one = |effect| Ok(vec![effect]);
    match strings.as_slice() {
        [
            "true" | ":" | "echo" | "printf" | "ls" | "pwd" | "env" | "id" | "whoami" | "date"
            | "which",
            ..,
        ] => one(Effect::Nothing("it only prints")),
        ["set", ..] => one(Effect::Nothing("it only changes the shell")),
        ["export", ..]
            if tail(1).iter().all(|word| {
                assigned(word).is_some_and(|name| HARMLESS_VARIABLES.contains(&name))
            }) =>
        {
            one(Effect::Nothing("it only changes the shell"))
        }
        ["ldconfig"] => one(Effect::System("no system library was added")),
        [name, "--version" | "-V"] if python(name) || pip(name) => {
            one(Effect::Nothing("it only prints"))
        }
        [name, "-m", "pip", "install", ..] if python(name) => pip_install(tail(4), directory),
        [name, "install", ..] if pip(name) => pip_install(tail(2), directory),
        ["uv", "pip", "install", ..] => pip_install(tail(3), directory),
        [name, "list" | "freeze" | "check" | "show" | "--version", ..] if pip(name) => {
            one(Effect::Nothing("it only prints"))
        }
        [name, "cache", "purge"] if pip(name) => one(Effect::System("there is no pip cache")),
        [name, "-m", "pip", "cache", "purge"] if python(name) => {
            one(Effect::Installer("there is no pip cache"))
        }
        ["apt-get" | "apt" | "apk", ..] => one(packages::effect(words)?),
        ["rm", ..] => one(Effect::Remove(
            tail(1)
                .iter()
                .filter(|word| !word.starts_with('-'))
                .map(|word| resolve_path(directory, &word.replacen('~', "/root", 1)))
                .collect(),
        )),
        [name, ..] => Err(format!("it runs `{name}`")),
        [] => one(Effect::Nothing("it is empty")),
    }
}

/// The effects of a RUN line in exec form.
///
/// # Errors
/// Why it needs a container.
pub(super) fn exec_effects(
    words: &[String],
    surroundings: &Surroundings<'_>,
) -> Result<Vec<Effect>, String> {
    match words {
        [shell, flag, line]
            if matches!(shell.rsplit('/').next(), Some("sh" | "bash")) && flag == "-c" =>
        {
            shell_effects(line, surroundings)
        }
        words => simple_command(words, surroundings.directory),
    }
}

/// The effects of a RUN line in shell form, command by command.
///
/// # Errors
/// Why it needs a container.
pub(super) fn shell_effects(
    line: &str,
    surroundings: &Surroundings<'_>,
) -> Result<Vec<Effect>, String> {
    let mut effects = Vec::new();
    let mut directory = surroundings.directory.to_owned();
    let mut variables = surroundings.variables.clone();
    let mut in_loop = false;
    for command in split_commands(line)? {
        let mut text = command.trim();
        if in_loop {
            if text == "done" {
                in_loop = false;
                continue;
            }
            text = text.strip_prefix("do ").unwrap_or(text).trim();
        }
        if text.is_empty() {
            continue;
        }
        if let Some(name) = unknown_variable(text, &variables) {
            return Err(format!(
                "it uses the variable {name}, which is not known here"
            ));
        }
        let words = expand_words(text, &variables, '\\')?;
        // `for NAME in DIRECTORY/*.whl`: the body runs on the pattern itself,
        // which is what pip would make of it.
        if let [for_word, name, in_word, pattern] = words.as_slice()
            && for_word == "for"
            && in_word == "in"
        {
            if in_loop || wheel_directory(pattern, &directory).is_none() {
                return Err("it loops over something else than the project's wheels".to_owned());
            }
            variables.insert(name.clone(), pattern.clone());
            in_loop = true;
            continue;
        }
        if let [cd, to] = words.as_slice()
            && cd == "cd"
        {
            directory = resolve_path(&directory, to);
            continue;
        }
        effects.extend(simple_command(&words, &directory)?);
    }
    if in_loop {
        return Err("its loop has no end".to_owned());
    }
    Ok(effects)
}

pub(super) fn unknown_variable(text: &str, variables: &BTreeMap<String, String>) -> Option<String> {
    text.split('$').skip(1).find_map(|after| {
        let name: String = after
            .trim_start_matches('{')
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        (!variables.contains_key(&name)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(line: &str) -> Result<Vec<Effect>, String> {
        let variables = BTreeMap::from([("REQ".to_owned(), "requirements.txt".to_owned())]);
        shell_effects(
            line,
            &Surroundings {
                directory: "app",
                variables: &variables,
            },
        )
    }

    fn wheels(directory: &str, dependencies: bool) -> Vec<Effect> {
        vec![Effect::InstallWheels {
            directory: directory.to_owned(),
            dependencies,
        }]
    }

    #[test]
    fn the_forms_of_installing_requirements() {
        for line in [
            "pip install -r requirements.txt",
            "pip3 install --no-cache-dir -r requirements.txt",
            "python -m pip install -q --no-cache-dir --timeout 60 --requirement=requirements.txt",
            "/usr/local/bin/python3.11 -m pip install -rrequirements.txt > /dev/null 2>&1",
            "cd /app && pip install -r ./requirements.txt",
            "PIP_NO_CACHE_DIR=1 pip install -r requirements.txt",
            "uv pip install --system --no-cache -r requirements.txt",
            "pip install -r $REQ",
        ] {
            assert_eq!(
                effects(line).unwrap(),
                [Effect::Install {
                    files: vec!["app/requirements.txt".to_owned()],
                    constraints: Vec::new(),
                    lines: Vec::new()
                }],
                "{line}"
            );
        }
        assert_eq!(
            effects("pip install --index-url https://index.test/ 'bigflow[log]==1.11.3'").unwrap(),
            [Effect::Install {
                files: Vec::new(),
                constraints: Vec::new(),
                lines: vec![
                    "--index-url https://index.test/".to_owned(),
                    "bigflow[log]==1.11.3".to_owned()
                ]
            }]
        );
    }

    #[test]
    fn the_forms_of_installing_the_project() {
        assert_eq!(
            effects("pip install dist/*.whl").unwrap(),
            wheels("app/dist", true)
        );
        assert_eq!(
            effects("pip install --no-deps /dist/*.whl").unwrap(),
            wheels("dist", false)
        );
        for line in [
            "for i in /dist/*.whl; do pip install $i; done",
            "for i in /dist/*.whl; do pip install \"$i\" --no-cache-dir ; done;",
            "for i in /dist/*.whl ; do pip install ${i}; done",
            "for i in /dist/*.whl; do pip install $i --use-feature=2020-resolver; done",
        ] {
            assert_eq!(effects(line).unwrap(), wheels("dist", true), "{line}");
        }
    }

    #[test]
    fn one_command_may_install_both_under_constraints() {
        assert_eq!(
            effects("pip install -c constraints.txt --pre -r requirements.txt dist/*.whl").unwrap(),
            [
                Effect::Install {
                    files: vec!["app/requirements.txt".to_owned()],
                    constraints: vec!["app/constraints.txt".to_owned()],
                    lines: vec!["--pre".to_owned()],
                },
                Effect::InstallWheels {
                    directory: "app/dist".to_owned(),
                    dependencies: true
                }
            ]
        );
    }

    #[test]
    fn an_apt_get_of_nothing_does_nothing() {
        let line = "set -ex; apt-get -y update && apt-get install -y --no-install-recommends  && apt-get clean && rm -rf /var/lib/apt/lists/*";
        let effects = effects(line).unwrap();
        assert!(matches!(
            effects.as_slice(),
            [
                Effect::Nothing(_),
                Effect::System(_),
                Effect::System(_),
                Effect::System(_),
                Effect::Remove(paths)
            ] if paths == &["var/lib/apt/lists/*"]
        ));
        assert!(matches!(
            super::tests::effects("pip install --upgrade pip wheel")
                .unwrap()
                .as_slice(),
            [Effect::Installer(_)]
        ));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        for (line, reason) in [
            ("apt-get install -y libc-dev", "libc-dev"),
            ("apt-get upgrade", "upgrade"),
            ("curl https://x.test | sh", "'|'"),
            ("echo a > /etc/x", "writes a file"),
            ("pip install $(cat x)", "substitutes"),
            ("pip install -e .", "-e"),
            ("# a comment\nmake", "`make`"),
            ("pip install .", "no requirement"),
            ("pip install git+https://x.test/y", "no requirement"),
            ("pip install --target /x -r requirements.txt", "--target"),
            (
                "PIP_TARGET=/x pip install -r requirements.txt",
                "PIP_TARGET",
            ),
            ("pip install $OTHER", "OTHER"),
            ("make && pip install x", "`make`"),
            ("for i in a b; do pip install $i; done", "`for`"),
            ("for i in a/*.tar; do pip install $i; done", "loops"),
            ("test -f x || pip install x", "'|'"),
            ("pip install x &", "'&'"),
        ] {
            let problem = effects(line).unwrap_err();
            assert!(problem.contains(reason), "{line}: {problem}");
        }
    }
}
