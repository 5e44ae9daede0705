//! The patterns of `COPY`, `.dockerignore` and `package_data`: Go's
//! `filepath.Match`, and `**` for any number of directories.

/// Whether `path` matches `pattern`. `*` and `?` do not match `/`, `**` does.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    match_components(&pattern, &path)
}

fn match_components(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => {
            match_components(rest, path)
                || path
                    .split_first()
                    .is_some_and(|(_, path)| match_components(pattern, path))
        }
        (Some((first, rest)), Some((component, path))) => {
            let first: Vec<char> = first.chars().collect();
            let component: Vec<char> = component.chars().collect();
            match_characters(&first, &component) && match_components(rest, path)
        }
        _ => false,
    }
}

fn match_characters(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => {
            match_characters(rest, text)
                || text
                    .split_first()
                    .is_some_and(|(_, text)| match_characters(pattern, text))
        }
        (Some(('?', rest)), Some((_, text))) => match_characters(rest, text),
        (Some(('[', rest)), Some((character, text))) => {
            let Some(end) = rest.iter().skip(1).position(|&c| c == ']') else {
                return false;
            };
            let (set, after) = rest.split_at(end + 1);
            let (negated, set) = match set.split_first() {
                Some(('^' | '!', set)) => (true, set),
                _ => (false, set),
            };
            in_set(set, *character) != negated
                && match_characters(after.get(1..).unwrap_or_default(), text)
        }
        (Some(('\\', rest)), Some((character, text))) => match rest.split_first() {
            Some((literal, rest)) => literal == character && match_characters(rest, text),
            None => false,
        },
        (Some((literal, rest)), Some((character, text))) => {
            literal == character && match_characters(rest, text)
        }
        _ => false,
    }
}

fn in_set(set: &[char], character: char) -> bool {
    let mut rest = set;
    loop {
        match rest {
            [low, '-', high, after @ ..] => {
                if (*low..=*high).contains(&character) {
                    return true;
                }
                rest = after;
            }
            [one, after @ ..] => {
                if *one == character {
                    return true;
                }
                rest = after;
            }
            [] => return false,
        }
    }
}

/// Whether a text has a character that patterns give a meaning to.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// A `.dockerignore` file: later lines win, `!` takes back.
#[derive(Debug, Clone, Default)]
pub struct IgnoreFile {
    rules: Vec<(bool, String)>,
}

impl IgnoreFile {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Self {
        let rules = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (excluded, pattern) = match line.strip_prefix('!') {
                    Some(pattern) => (false, pattern.trim()),
                    None => (true, line),
                };
                let pattern = pattern.trim_start_matches("./").trim_matches('/');
                (excluded, pattern.to_owned())
            })
            .collect();
        Self { rules }
    }

    /// Whether the file keeps `path`, or a directory above it, out of the context.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for (rule_excludes, pattern) in &self.rules {
            let hit = matches(pattern, path)
                || crate::wheels::parents(path).any(|parent| matches(pattern, parent));
            if hit {
                excluded = *rule_excludes;
            }
        }
        excluded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_gos_do() {
        for (pattern, path, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("d/*", "d/a", true),
            ("d/*", "d/e/a", false),
            ("**/*.pyc", "a.pyc", true),
            ("**/*.pyc", "d/e/a.pyc", true),
            ("a?[b-d]", "axc", true),
            ("a[^b]", "ab", false),
            ("a\\*", "a*", true),
            ("a", "ab", false),
            ("**", "x/y", true),
            ("[", "[", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn the_last_rule_decides() {
        let ignore =
            IgnoreFile::parse("# comment\n.git\n**/*.pyc\nresources/*\n!resources/keep.sql\n");
        assert!(ignore.excludes(".git/HEAD"));
        assert!(ignore.excludes("a/b.pyc"));
        assert!(ignore.excludes("resources/x"));
        assert!(!ignore.excludes("resources/keep.sql"));
        assert!(!ignore.excludes("a/b.py"));
    }
}
