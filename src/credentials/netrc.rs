//! Users and passwords of servers, as curl, git and pip read them: `.netrc`.

use std::path::PathBuf;

use super::{Login, LoginKind, Secret};

/// The login for a host, from the file in `$NETRC` or `~/.netrc`; none if neither has one.
pub fn netrc_login(host: &str) -> Option<Login> {
    let named = std::env::var_os("NETRC").filter(|path| !path.is_empty());
    let path = match named {
        Some(path) => PathBuf::from(path),
        None => std::env::home_dir()?.join(".netrc"),
    };
    let (user, password) = find(&std::fs::read_to_string(&path).ok()?, host)?;
    Some(Login {
        description: format!("{user} ({})", path.display()),
        kind: LoginKind::Password { user, password },
    })
}

/// The first entry of the host, or the default one, which comes last.
fn find(text: &str, host: &str) -> Option<(String, Secret)> {
    let mut words = words(text).into_iter();
    let mut word = words.next();
    while let Some(kind) = word {
        let applies = match kind.as_str() {
            "machine" => words.next()?.eq_ignore_ascii_case(host),
            "default" => true,
            _ => {
                word = words.next();
                continue;
            }
        };
        let (mut user, mut password) = (None, None);
        loop {
            word = words.next();
            match word.as_deref() {
                Some("login") => user = words.next(),
                Some("password") => password = words.next(),
                Some("account") => drop(words.next()),
                _ => break,
            }
        }
        if applies {
            return Some((user?, Secret::new(password?)));
        }
    }
    None
}

/// The words of the file: apart by white space, or in quotes with `\` before what is meant as
/// it is. Comments begin with `#` where a word could; what follows `macdef`, up to an empty
/// line, is for other programs.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut in_macro = false;
    for line in text.lines() {
        if in_macro {
            in_macro = !line.trim().is_empty();
            continue;
        }
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            let (word, after) = word(rest);
            if word == "macdef" {
                in_macro = true;
                break;
            }
            words.push(word);
            rest = after.trim_start();
        }
    }
    words
}

fn word(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        return (word.to_owned(), rest);
    };
    let mut word = String::new();
    let mut letters = quoted.char_indices();
    while let Some((position, letter)) = letters.next() {
        match letter {
            '"' => return (word, quoted.get(position + 1..).unwrap_or_default()),
            '\\' => word.extend(letters.next().map(|(_, escaped)| escaped)),
            letter => word.push(letter),
        }
    }
    (word, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "
# servers
machine files.example.com login anna password pass#word
machine other.example.com
    login ben   # a comment
    account team
    password \"two \\\"words\\\"\"
macdef init
machine trap.example.com login mallory password x

machine nobody.example.com login only
default login anonymous password guest
";

    #[test]
    fn the_entry_of_the_host_counts() {
        let login = |host: &str| {
            let (user, password) = find(FILE, host)?;
            Some(format!("{user}:{}", password.reveal()))
        };
        assert_eq!(login("FILES.example.com").unwrap(), "anna:pass#word");
        assert_eq!(login("other.example.com").unwrap(), "ben:two \"words\"");
        assert_eq!(login("trap.example.com").unwrap(), "anonymous:guest");
        assert_eq!(login("nobody.example.com"), None);
        assert!(find("", "any").is_none());
        assert!(find("machine", "any").is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(machine|login|password|\\PC|[ \n\"#\\\\])*") {
            let _ = find(&text, "host");
        }
    }
}
