//! Reads requirements files as pip does, far enough to know everything that
//! decides what they come to (pip's "Requirements File Format").

use std::path::{Path, PathBuf};

use forebay_store::ObjectDigest;

use super::WheelError;

/// Files that may include each other at most.
const MAX_FILES: usize = 100;

/// What one or several requirements files say, includes read.
///
/// It has no `Debug`, because options may hold credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// Requirements, without comments, each on one line with its options.
    pub requirements: Vec<String>,
    /// Constraints.
    pub constraints: Vec<String>,
    /// Options for the whole file (`--index-url …`). They may hold credentials.
    pub options: Vec<String>,
    /// Digests of local archives that requirements name.
    local_files: Vec<ObjectDigest>,
    /// The places of `--find-links`, with the folder of the file that names them.
    pub(super) find_links: Vec<(PathBuf, String)>,
}

impl Requirements {
    /// Reads `files` and all that they include.
    ///
    /// # Errors
    /// A file that cannot be read, an include that goes round in circles, or a
    /// requirement that is a directory: what it comes to cannot be known from its name.
    pub fn read(files: &[PathBuf]) -> Result<Self, WheelError> {
        let mut requirements = Self::default();
        for file in files {
            requirements.read_file(file, false, &mut Vec::new())?;
        }
        Ok(requirements)
    }

    /// Names everything that was read. Credentials that options may hold go
    /// into the digest, and nothing else of them is kept.
    pub fn digest(&self) -> ObjectDigest {
        let parts = [&self.requirements, &self.constraints, &self.options];
        let mut text = String::new();
        for part in parts {
            for line in part {
                text.push_str(line);
                text.push('\n');
            }
            text.push('\0');
        }
        for digest in &self.local_files {
            text.push_str(&digest.to_string());
        }
        ObjectDigest::of(text.as_bytes())
    }

    /// Names what was read as far as it is the same on every machine: without users and
    /// passwords of URLs. `None` if it names files or addresses of its own: what those have
    /// cannot be fetched again by name and digest.
    pub(super) fn portable_digest(&self) -> Option<ObjectDigest> {
        let is_own = |line: &String| line.contains("://") || line.contains(" @ ");
        if !self.local_files.is_empty()
            || !self.find_links.is_empty()
            || self.requirements.iter().any(is_own)
        {
            return None;
        }
        let mut text = String::new();
        for part in [&self.requirements, &self.constraints, &self.options] {
            for line in part {
                text.push_str(&strip_credentials(line));
                text.push('\n');
            }
            text.push('\0');
        }
        Some(ObjectDigest::of(text.as_bytes()))
    }

    /// Reads files as constraints.
    ///
    /// # Errors
    /// See [`Requirements::read`].
    pub(super) fn read_constraints(&mut self, files: &[PathBuf]) -> Result<(), WheelError> {
        for file in files {
            self.read_file(file, true, &mut Vec::new())?;
        }
        Ok(())
    }

    /// The options for a file somewhere else: a folder of `--find-links` that is seen from the file
    /// which names it is written in full, as pip would find it.
    pub(super) fn options_elsewhere(&self) -> Vec<String> {
        let mut places = self.find_links.iter();
        let each = self.options.iter().map(|line| {
            let is_place = option_value(line, "-f", "--find-links").is_some();
            match is_place.then(|| places.next()).flatten() {
                Some((directory, place)) => {
                    let path = directory.join(place);
                    match std::path::absolute(&path) {
                        Ok(path) if path.exists() => {
                            line.replacen(place.as_str(), &quoted(&path.to_string_lossy()), 1)
                        }
                        _ => line.clone(),
                    }
                }
                None => line.clone(),
            }
        });
        each.collect()
    }

    /// Every line that was read.
    pub(super) fn lines(&self) -> impl Iterator<Item = &String> {
        [&self.requirements, &self.constraints, &self.options]
            .into_iter()
            .flatten()
    }

    /// Whether every requirement says the hash of what it comes to.
    pub(super) fn are_all_hashed(&self) -> bool {
        !self.requirements.is_empty() && self.requirements.iter().all(|r| r.contains(" --hash="))
    }

    /// Adds an option for the whole file, which stands in `directory`.
    pub(super) fn add_option(&mut self, line: String, directory: &Path) {
        if let Some(place) = option_value(&line, "-f", "--find-links") {
            let place = place.split(" -").next().unwrap_or(place).to_owned();
            self.find_links.push((directory.to_owned(), place));
        }
        self.options.push(line);
    }

    fn read_file(
        &mut self,
        path: &Path,
        is_constraint: bool,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), WheelError> {
        let refused = |line, problem: String| WheelError::Requirements {
            path: path.to_owned(),
            line,
            problem,
        };
        if above.iter().any(|file| file == path) || above.len() > MAX_FILES {
            return Err(refused(None, "it includes itself".to_owned()));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| refused(None, format!("it cannot be read: {error}")))?;
        above.push(path.to_owned());
        let directory = path.parent().unwrap_or(Path::new("."));
        for (number, line) in logical_lines(&text) {
            if let Some(file) = option_value(&line, "-r", "--requirement") {
                self.read_file(&directory.join(file), is_constraint, above)?;
            } else if let Some(file) = option_value(&line, "-c", "--constraint") {
                self.read_file(&directory.join(file), true, above)?;
            } else if option_value(&line, "-e", "--editable").is_some() {
                return Err(refused(
                    Some(number),
                    "an editable requirement (-e) cannot become a wheel".to_owned(),
                ));
            } else if line.starts_with('-') {
                self.add_option(line, directory);
            } else {
                let expanded = expand(&line, |name| std::env::var(name).ok());
                if let Some(local) = local_path(&expanded) {
                    let bytes = std::fs::read(directory.join(local)).map_err(|error| {
                        refused(
                            Some(number),
                            format!("{local} is not a file that can be read: {error}"),
                        )
                    })?;
                    self.local_files.push(ObjectDigest::of(&bytes));
                }
                if is_constraint {
                    self.constraints.push(line);
                } else {
                    self.requirements.push(line);
                }
            }
        }
        above.pop();
        Ok(())
    }
}

/// Puts the values of variables in the place of `${NAME}`, as pip does; a variable
/// that is not set, or whose name has other than `A-Z`, `0-9` and `_`, stays.
pub(super) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let name = after.split_once('}').filter(|(name, _)| is_name(name));
        match name.and_then(|(name, tail)| Some((value(name)?, tail))) {
            Some((value, tail)) => {
                out.push_str(&value);
                rest = tail;
            }
            None => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Joins continued lines, and takes comments and empty lines away.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let is_comment = line.trim_start().starts_with('#');
        let (number, mut joined) = pending.take().unwrap_or((index + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(continued) if !is_comment => {
                joined.push_str(continued);
                pending = Some((number, joined));
                continue;
            }
            _ if !is_comment => joined.push_str(line),
            _ => {}
        }
        lines.push((number, joined));
    }
    lines.extend(pending);
    lines
        .into_iter()
        .map(|(number, line)| {
            // A comment starts at a # that follows a blank.
            let comment = line
                .match_indices('#')
                .find(|(at, _)| {
                    *at == 0
                        || line
                            .as_bytes()
                            .get(at - 1)
                            .is_some_and(u8::is_ascii_whitespace)
                })
                .map_or(line.len(), |(at, _)| at);
            let line = line.get(..comment).unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            (number, words.join(" "))
        })
        .filter(|(_, line)| !line.is_empty())
        .collect()
}

fn option_value<'a>(line: &'a str, short: &str, long: &str) -> Option<&'a str> {
    let value = match line.strip_prefix(long) {
        Some(rest) => rest.strip_prefix([' ', '='])?,
        None => line.strip_prefix(short)?,
    };
    Some(value.trim())
}

/// pip takes the options of a line apart as a shell would.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    match text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\"'\"'")),
    }
}

/// The path of a requirement that is a local archive or directory.
fn local_path(line: &str) -> Option<&str> {
    let target = line.split(" ;").next().unwrap_or(line);
    let target = target.split(" --").next().unwrap_or(target).trim();
    let target = match target.split_once('@') {
        Some((_, url)) if url.trim_start().starts_with("file:") => url.trim(),
        _ => target,
    };
    if let Some(path) = target.strip_prefix("file:") {
        return Some(path.strip_prefix("//").unwrap_or(path));
    }
    let is_archive = [".whl", ".tar.gz", ".zip"]
        .iter()
        .any(|suffix| target.ends_with(suffix));
    let is_url = target.contains("://");
    (!is_url && (target.starts_with(['.', '/']) || is_archive)).then_some(target)
}

/// Whether a URL in `text` has a user or password that is no `${VARIABLE}`. The
/// user of an SSH URL opens nothing by itself.
pub fn has_credentials(text: &str) -> bool {
    text.match_indices("://").any(|(at, _)| {
        let (before, after) = text.split_at(at);
        if before.ends_with("ssh") {
            return false;
        }
        let authority = after
            .trim_start_matches("://")
            .split(|c: char| c == '/' || c.is_whitespace() || "\"'<>".contains(c))
            .next()
            .unwrap_or_default();
        let Some((user, _)) = authority.rsplit_once('@') else {
            return false;
        };
        let secret = match user.split_once(':') {
            Some((_, password)) if !password.is_empty() => password,
            _ => user.trim_end_matches(':'),
        };
        let is_variable = secret.starts_with("${") && secret.ends_with('}');
        !secret.is_empty() && !is_variable
    })
}

/// Takes user names and passwords out of all URLs in `text`.
pub fn strip_credentials(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace() || "\"'<>".contains(c))
            .unwrap_or(after.len());
        let (mut authority, mut tail) = after.split_at(end);
        // The colon of a `://` that follows at once is no part of this authority.
        if tail.starts_with("//")
            && let Some(shorter) = authority.strip_suffix(':')
        {
            (authority, tail) = after.split_at(shorter.len());
        }
        out.push_str(
            authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host),
        );
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn folders_of_links_are_the_same_from_everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("in side/wheels")).unwrap();
        write(&root, "in side/more.txt", "--find-links=wheels --pre\n");
        let text = "--pre\n-f in side/wheels\n-r in side/more.txt\n-f https://example.org/links\n-f not-here\n";
        let file = write(&root, "requirements.txt", text);
        let read = Requirements::read(&[file]).unwrap();
        let wheels = format!("'{}/in side/wheels'", root.display());
        assert_eq!(
            read.options_elsewhere(),
            [
                "--pre".to_owned(),
                format!("-f {wheels}"),
                format!("--find-links={wheels} --pre"),
                "-f https://example.org/links".to_owned(),
                "-f not-here".to_owned(),
            ]
        );
        assert_eq!(quoted("it's"), "'it'\"'\"'s'");
    }

    #[test]
    fn includes_comments_and_continuations() {
        let directory = tempfile::tempdir().unwrap();
        let top = write(
            directory.path(),
            "requirements.txt",
            "# top\n--extra-index-url https://u:p@index.test/simple\n-r sub/more.txt\n-c constraints.txt\n\
             a==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n    # via b\nb @ https://x.test/b#egg=b # note\n",
        );
        write(
            directory.path(),
            "sub/more.txt",
            "c[x]>=1 ; python_version < '4'\n",
        );
        write(directory.path(), "constraints.txt", "d<2\n");
        let read = Requirements::read(std::slice::from_ref(&top)).unwrap();
        assert_eq!(
            read.requirements,
            [
                "c[x]>=1 ; python_version < '4'",
                "a==1 --hash=sha256:00 --hash=sha256:11",
                "b @ https://x.test/b#egg=b"
            ]
        );
        assert_eq!(read.constraints, ["d<2"]);
        assert_eq!(
            read.options,
            ["--extra-index-url https://u:p@index.test/simple"]
        );

        let before = read.digest();
        write(
            directory.path(),
            "constraints.txt",
            "# only a comment\nd<2\n",
        );
        assert_eq!(
            Requirements::read(std::slice::from_ref(&top))
                .unwrap()
                .digest(),
            before
        );
        write(directory.path(), "constraints.txt", "d<3\n");
        assert_ne!(
            Requirements::read(std::slice::from_ref(&top))
                .unwrap()
                .digest(),
            before
        );
    }

    #[test]
    fn a_local_archive_counts_with_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let top = write(directory.path(), "r.txt", "./libs/x-1-py3-none-any.whl\n");
        assert!(Requirements::read(std::slice::from_ref(&top)).is_err());
        write(directory.path(), "libs/x-1-py3-none-any.whl", "one");
        let one = Requirements::read(std::slice::from_ref(&top))
            .unwrap()
            .digest();
        write(directory.path(), "libs/x-1-py3-none-any.whl", "two");
        assert_ne!(
            Requirements::read(std::slice::from_ref(&top))
                .unwrap()
                .digest(),
            one
        );
        write(directory.path(), "r.txt", "-e .\n");
        assert!(Requirements::read(&[top]).is_err());
    }

    #[test]
    fn a_file_that_includes_itself_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let top = write(directory.path(), "r.txt", "-r r.txt\n");
        assert!(Requirements::read(&[top]).is_err());
    }

    #[test]
    fn a_variable_is_no_password() {
        for (text, expected) in [
            ("--index-url https://user:hunter2@h.test/simple", true),
            ("x @ git+https://token@h.test/x.git", true),
            ("# https://a.test/ and https://t:@h.test/", true),
            ("x @ https://${USER}:${PASSWORD}@h.test/x.zip", false),
            ("x @ https://user:${PASSWORD}@h.test/x.zip", false),
            ("x @ https://${TOKEN}@h.test/x.zip", false),
            ("x @ git+ssh://git@h.test/x.git", false),
            ("x @ https://h.test/x.git@main", false),
        ] {
            assert_eq!(has_credentials(text), expected, "{text}");
        }
    }

    #[test]
    fn credentials_leave_urls() {
        assert_eq!(
            strip_credentials(
                "at https://user:p%40ss@host.test/x and http://t@h, plain http://h/a@b"
            ),
            "at https://host.test/x and http://h, plain http://h/a@b"
        );
        let inside = "-f https://--extra-index-url=http://a:b@c";
        assert_eq!(
            strip_credentials(inside),
            "-f https://--extra-index-url=http://c"
        );
    }
}
