//! Reads a Dockerfile into instructions (Docker's "Dockerfile reference",
//! sections "Format", "Escape", "Environment replacement", "Here-Documents").

use std::collections::BTreeMap;

/// Why a Dockerfile could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct DockerfileError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// The line it starts on, counted from 1.
    pub line: usize,
    /// Its name in upper case: `FROM`, `RUN`, …
    pub name: String,
    /// The rest: continuations joined, comments within them left out.
    pub arguments: String,
    /// The here-documents that belong to it, in order.
    pub heredocs: Vec<Heredoc>,
    /// As it is written, with all its lines.
    pub source: String,
}

/// A here-document of RUN, COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub word: String,
    /// The lines before that word, each with its end; leading tabs are gone with `<<-`.
    pub body: String,
}

impl Instruction {
    /// The instruction on one line, as it is shown to people.
    pub fn text(&self) -> String {
        let words: Vec<&str> = self.arguments.split_whitespace().collect();
        format!("{} {}", self.name, words.join(" "))
    }

    /// The arguments as a JSON list of strings ("exec form"), if they are one.
    pub fn exec_form(&self) -> Option<Vec<String>> {
        let arguments = self.arguments.trim();
        arguments
            .starts_with('[')
            .then(|| serde_json::from_str(arguments).ok())
            .flatten()
    }
}

/// A Dockerfile's instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// In their order.
    pub instructions: Vec<Instruction>,
    /// The character that continues a line: `\`, or a backtick by directive.
    pub escape: char,
}

/// What stands behind `<<` where a here-document starts: its word, and whether leading
/// tabs are taken away (`<<-`). It stands at the start of a word, perhaps behind the
/// number of a file descriptor: `$((1<<2))` starts none, and `<<<` is the shell's.
fn heredoc_words(arguments: &str) -> Vec<(String, bool)> {
    arguments
        .split_whitespace()
        .filter_map(|word| {
            let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
            let rest = rest.strip_prefix("<<")?;
            let (rest, strips_tabs) = match rest.strip_prefix('-') {
                Some(rest) => (rest, true),
                None => (rest, false),
            };
            let word: String = rest
                .trim_start_matches(['"', '\''])
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            (!word.is_empty()).then_some((word, strips_tabs))
        })
        .collect()
}

impl Dockerfile {
    /// Reads the text of a Dockerfile.
    ///
    /// # Errors
    /// A here-document without end, or an instruction that is no word.
    pub fn parse(text: &str) -> Result<Self, DockerfileError> {
        let mut escape = '\\';
        let mut instructions = Vec::new();
        let mut in_directives = true;
        let all: Vec<&str> = text.trim_start_matches('\u{feff}').lines().collect();
        let mut lines = all
            .iter()
            .enumerate()
            .map(|(index, line)| (index + 1, *line))
            .peekable();
        while let Some((line, first)) = lines.next() {
            let trimmed = first.trim();
            if let Some(comment) = trimmed.strip_prefix('#') {
                match comment.split_once('=').filter(|_| in_directives) {
                    Some((key, value)) if key.trim().eq_ignore_ascii_case("escape") => {
                        escape = value.trim().chars().next().unwrap_or('\\');
                    }
                    Some(_) => {}
                    // Directives end with the first line that is none.
                    None => in_directives = false,
                }
                continue;
            }
            in_directives = false;
            if trimmed.is_empty() {
                continue;
            }
            let mut logical = String::new();
            let mut current = first;
            loop {
                let Some(continued) = current.trim_end().strip_suffix(escape) else {
                    logical.push_str(current);
                    break;
                };
                logical.push_str(continued);
                // Comments and empty lines within a continued line are left out.
                let next = lines
                    .by_ref()
                    .find(|(_, l)| !l.trim_start().starts_with('#') && !l.trim().is_empty());
                match next {
                    Some((_, next)) => current = next,
                    None => break,
                }
            }
            let logical = logical.trim();
            let (name, arguments) = logical
                .split_once(char::is_whitespace)
                .unwrap_or((logical, ""));
            if !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                return Err(DockerfileError {
                    line,
                    problem: format!("{name:?} is not an instruction"),
                });
            }
            let name = name.to_ascii_uppercase();
            let words = match name.as_str() {
                "RUN" | "COPY" | "ADD" => heredoc_words(arguments),
                _ => Vec::new(),
            };
            let mut heredocs = Vec::new();
            for (word, strips_tabs) in words {
                let mut body = String::new();
                loop {
                    let Some((_, next)) = lines.next() else {
                        return Err(DockerfileError {
                            line,
                            problem: format!("the here-document {word} has no end"),
                        });
                    };
                    let next = match strips_tabs {
                        true => next.trim_start_matches('\t'),
                        false => next,
                    };
                    if next.trim_end_matches('\r') == word {
                        break;
                    }
                    body.push_str(next);
                    body.push('\n');
                }
                heredocs.push(Heredoc { word, body });
            }
            let end = lines.peek().map_or(all.len(), |(next, _)| next - 1);
            let source = all.get(line - 1..end).unwrap_or_default().join("\n");
            instructions.push(Instruction {
                line,
                name,
                arguments: arguments.trim().to_owned(),
                heredocs,
                source: source.trim_end().to_owned(),
            });
        }
        Ok(Self {
            instructions,
            escape,
        })
    }
}

type Characters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Reads what follows a `$` and gives its value.
fn variable(
    characters: &mut Characters<'_>,
    variables: &BTreeMap<String, String>,
    escape: char,
) -> Result<String, String> {
    let is_name = |c: &char| c.is_alphanumeric() || *c == '_';
    if characters.next_if_eq(&'{').is_none() {
        let name: String = std::iter::from_fn(|| characters.next_if(is_name)).collect();
        return Ok(if name.is_empty() {
            "$".to_owned()
        } else {
            variables.get(&name).cloned().unwrap_or_default()
        });
    }
    let mut depth = 1;
    let mut inside = String::new();
    for next in characters.by_ref() {
        depth += i32::from(next == '{') - i32::from(next == '}');
        if depth == 0 {
            break;
        }
        inside.push(next);
    }
    if depth != 0 {
        return Err(format!("${{{inside} has no closing brace"));
    }
    let name_end = inside.find(|c: char| !is_name(&c)).unwrap_or(inside.len());
    let (name, modifier) = inside.split_at(name_end);
    let value = variables.get(name).cloned();
    let filled = value.clone().filter(|value| !value.is_empty());
    let replacement = |word: &str| substitute(word, variables, escape);
    if modifier.is_empty() {
        Ok(value.unwrap_or_default())
    } else if let Some(word) = modifier.strip_prefix(":-") {
        filled.map_or_else(|| replacement(word), Ok)
    } else if let Some(word) = modifier.strip_prefix('-') {
        value.map_or_else(|| replacement(word), Ok)
    } else if let Some(word) = modifier.strip_prefix(":+") {
        filled.map_or(Ok(String::new()), |_| replacement(word))
    } else {
        Err(format!("${{{inside}}} uses an unknown modifier"))
    }
}

/// Replaces `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}` and
/// `${NAME:+value}` outside of single quotes; an escaped `$` stays. An unknown
/// name is empty, as in Docker.
///
/// # Errors
/// A brace without its end, or a modifier that is not one of these.
pub(super) fn substitute(
    text: &str,
    variables: &BTreeMap<String, String>,
    escape: char,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut quote: Option<char> = None;
    while let Some(character) = characters.next() {
        match character {
            '\'' | '"' if quote.is_none() => quote = Some(character),
            _ if quote == Some(character) => quote = None,
            _ => {}
        }
        let expands = quote != Some('\'');
        if expands && character == escape && characters.next_if_eq(&'$').is_some() {
            out.push('$');
        } else if expands && character == '$' {
            out.push_str(&variable(&mut characters, variables, escape)?);
        } else {
            out.push(character);
        }
    }
    Ok(out)
}

/// Splits at blanks outside of quotes, takes quotes and escapes away, and
/// replaces variables as [`substitute`] does; a value is never split.
///
/// # Errors
/// A quote without its end, or what [`substitute`] refuses.
pub(super) fn expand_words(
    text: &str,
    variables: &BTreeMap<String, String>,
    escape: char,
) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), _) if character == escape => {
                if let Some(next) = characters.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            (None | Some('"'), '$') => {
                let value = variable(&mut characters, variables, escape)?;
                word.get_or_insert_default().push_str(&value);
            }
            (None, blank) if blank.is_whitespace() => words.extend(word.take()),
            (_, other) => word.get_or_insert_default().push(other),
        }
    }
    if quote.is_some() {
        return Err("a quote has no end".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_within_a_continued_line_are_left_out() {
        let file = Dockerfile::parse(
            "# syntax=docker/dockerfile:1\nFROM a\n\n# hello\nrun apt-get install -y \\\n  # libc-dev \\\n\n  && rm -rf x\nCMD [\"a\", \"b c\"]\n",
        )
        .unwrap();
        let lines: Vec<_> = file
            .instructions
            .iter()
            .map(|i| (i.line, i.text()))
            .collect();
        assert_eq!(
            lines,
            [
                (2, "FROM a".to_owned()),
                (5, "RUN apt-get install -y && rm -rf x".to_owned()),
                (9, "CMD [\"a\", \"b c\"]".to_owned()),
            ]
        );
        assert_eq!(
            file.instructions[2].exec_form().unwrap(),
            ["a".to_owned(), "b c".to_owned()]
        );
    }

    #[test]
    fn a_heredoc_is_recognised_and_skipped() {
        let file =
            Dockerfile::parse("RUN <<EOF\napt-get install x\nCOPY a b\nEOF\nUSER x\n").unwrap();
        assert_eq!(file.instructions.len(), 2);
        assert_eq!(
            file.instructions[0].heredocs,
            [Heredoc {
                word: "EOF".to_owned(),
                body: "apt-get install x\nCOPY a b\n".to_owned()
            }]
        );
        assert!(file.instructions[0].source.ends_with("COPY a b\nEOF"));
        assert!(file.instructions[1].heredocs.is_empty());
        let file = Dockerfile::parse(
            "RUN <<-\"A\" cat 3<<B\n\tone\n\tA\ntwo\nB\nRUN echo $((1<<2)) <<< x\nUSER y\n",
        )
        .unwrap();
        let bodies: Vec<_> = file.instructions[0]
            .heredocs
            .iter()
            .map(|heredoc| heredoc.body.as_str())
            .collect();
        assert_eq!(bodies, ["one\n", "two\n"]);
        assert_eq!(file.instructions.len(), 3);
        assert!(Dockerfile::parse("RUN <<EOF\nx\n").is_err());
    }

    #[test]
    fn another_escape_character() {
        let file = Dockerfile::parse("# escape=`\nRUN a `\n b\n").unwrap();
        assert_eq!(file.instructions[0].text(), "RUN a b");
    }

    #[test]
    fn variables_are_replaced_as_docker_does() {
        let variables = BTreeMap::from([
            ("A".to_owned(), "x".to_owned()),
            ("E".to_owned(), String::new()),
        ]);
        for (text, expected) in [
            ("$A/${A}b", "x/xb"),
            ("${N:-d}${E:-e}${E-f}", "de"),
            ("${A:+$A$A}${N:+y}", "xx"),
            ("\\$A $ $N.", "$A $ ."),
            ("'$A'", "'$A'"),
            ("\"it's $A\"", "\"it's x\""),
            ("${N:-${A}}", "x"),
        ] {
            assert_eq!(
                substitute(text, &variables, '\\').as_deref(),
                Ok(expected),
                "{text}"
            );
        }
        assert!(substitute("${A%x}", &variables, '\\').is_err());
        assert!(substitute("${A", &variables, '\\').is_err());
    }

    #[test]
    fn words_lose_their_quotes() {
        let variables = BTreeMap::from([("A".to_owned(), "x y".to_owned())]);
        assert_eq!(
            expand_words(r#"a "b c"  'd "e'f\ g "" $A-'$A' \$A "#, &variables, '\\').unwrap(),
            ["a", "b c", "d \"ef g", "", "x y-$A", "$A"]
        );
        assert!(expand_words("a \"b", &variables, '\\').is_err());
    }
}
