//! What decides which wheels pip finds, besides the requirements: its settings in
//! variables and configuration files, and the local folders and files that these
//! and the requirements name.
//!
//! Only digests are kept: settings may hold secrets. Users and passwords in URLs
//! do not even go into those: they change from hour to hour, and decide nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use forebay_store::ObjectDigest;

use super::requirements::{Requirements, expand, strip_credentials};
use super::uv_configuration::{Index, UvConfiguration, with_login};

/// Settings that say how pip connects, speaks or caches, not what it finds. The
/// configuration file that a variable names counts with what is in it.
const WITHOUT_EFFECT: [&str; 27] = [
    "break-system-packages",
    "cache-dir",
    "cert",
    "client-cert",
    "config-file",
    "debug",
    "default-timeout",
    "disable-pip-version-check",
    "exists-action",
    "keyring-provider",
    "log",
    "no-cache-dir",
    "no-color",
    "no-input",
    "no-python-version-warning",
    "no-warn-script-location",
    "progress-bar",
    "proxy",
    "quiet",
    "require-virtualenv",
    "resume-retries",
    "retries",
    "root-user-action",
    "timeout",
    "trusted-host",
    "user",
    "verbose",
];

/// Settings that say where pip looks.
const INDEXES: [&str; 4] = ["extra-index-url", "find-links", "index-url", "no-index"];

/// Settings that name files which count with what is in them.
const FILES: [&str; 3] = ["build-constraint", "constraint", "requirement"];

/// Names, and digests of names with values; sorted.
pub(super) type Digests = Vec<(String, ObjectDigest)>;

/// Variables of a process.
pub(super) type Variables = Vec<(String, String)>;

/// Where settings are looked up.
pub(super) struct Surroundings<'a> {
    /// The process's variables.
    pub(super) variables: &'a BTreeMap<String, String>,
    /// The interpreter: its prefix may have a `pip.conf`.
    pub(super) executable: &'a Path,
    /// The computer's own configuration files, `/etc` before all.
    pub(super) system: &'a Path,
    /// The project's folder: uv's configuration is looked for in it and above.
    pub(super) directory: &'a Path,
}

impl Surroundings<'_> {
    /// Everything besides the text of `requirements` that decides what it comes to.
    ///
    /// Where every requirement has its hash, it does not matter where pip finds it.
    pub(super) fn observe(&self, requirements: &Requirements) -> Digests {
        let anywhere = requirements.are_all_hashed();
        let mut found = Vec::new();
        for (name, value) in self.settings() {
            let option = name.as_str();
            if WITHOUT_EFFECT.contains(&option) {
                continue;
            }
            let is_index = INDEXES.contains(&option) || option.starts_with("uv-");
            if is_index && anywhere {
                continue;
            }
            if ["find-links", "uv-find-links"].contains(&option) {
                for place in value.split_whitespace() {
                    found.push((name.clone(), self.place(Path::new("."), place)));
                }
            } else if FILES.contains(&option) {
                for file in value.split_whitespace() {
                    found.push((name.clone(), digest_of_file(&self.path(file))));
                }
            } else {
                found.push((name, ObjectDigest::of(strip_credentials(&value).as_bytes())));
            }
        }
        if !anywhere {
            for (directory, place) in &requirements.find_links {
                found.push(("find-links".to_owned(), self.place(directory, place)));
            }
        }
        for line in requirements.lines() {
            let is_index = line.starts_with("-i")
                || line.starts_with("-f")
                || INDEXES.iter().any(|option| {
                    line.strip_prefix("--")
                        .is_some_and(|line| line.starts_with(option))
                });
            let expanded = expand(line, |name| self.variables.get(name).cloned());
            if expanded != *line && !(anywhere && is_index) {
                let digest = ObjectDigest::of(strip_credentials(&expanded).as_bytes());
                found.push(("line".to_owned(), digest));
            }
        }
        found.sort();
        found
    }

    /// Whether uv alone is told where packages are. It prefers one index to another, which pip
    /// does not: then uv has to choose.
    pub(super) fn are_uvs_alone(&self) -> bool {
        let settings = self.settings();
        let says =
            |wanted: &dyn Fn(&str) -> bool| settings.iter().any(|(name, _)| wanted(name.as_str()));
        says(&|name| name.starts_with("uv-")) && !says(&|name| INDEXES.contains(&name))
    }

    /// Where packages come from, for the one of pip and uv that was not told: each reads its
    /// own variables and configuration files. First for pip, then for uv. They may hold
    /// credentials, and are handed on as variables, which no process list shows.
    pub(super) fn for_each_other(&self) -> (Variables, Variables) {
        let settings = self.settings();
        let all = |names: &[&str]| -> Vec<&str> {
            let named = settings
                .iter()
                .filter(|(name, _)| names.contains(&name.as_str()));
            named
                .flat_map(|(_, value)| value.split_whitespace())
                .collect()
        };
        // Of pip's own the first counts alone.
        let first = |name: &str| -> Vec<&str> {
            let found = settings.iter().find(|(option, _)| option == name);
            found.map_or(Vec::new(), |(_, value)| value.split_whitespace().collect())
        };
        let known_to_uv = UvConfiguration::read(self.directory, self.variables, self.system);
        let login = |url: &str| {
            // uv may name its indexes: NAME=URL.
            let (name, url) = match url.split_once('=') {
                Some((name, rest)) if !name.contains(':') => (Some(name), rest),
                _ => (None, url),
            };
            let indexes = known_to_uv.indexes.iter().chain(&known_to_uv.default_index);
            let mut same = indexes.filter(|index| index.url == url);
            let name = name.or_else(|| same.find_map(|index| index.name.as_deref()));
            with_login(url, name, self.variables)
        };
        let (mut for_pip, mut for_uv) = (Vec::new(), Vec::new());
        let mut hand_on = |pips: Vec<&str>, uvs: Vec<&str>, names: (&str, &str), one: bool| {
            let separator = if names.1 == "UV_FIND_LINKS" { "," } else { " " };
            match (pips.is_empty(), uvs.is_empty()) {
                (true, false) => {
                    let count = if one { 1 } else { uvs.len() };
                    let urls: Vec<String> = uvs.into_iter().take(count).map(&login).collect();
                    for_pip.push((names.0.to_owned(), urls.join(" ")));
                }
                (false, true) => for_uv.push((names.1.to_owned(), pips.join(separator))),
                _ => {}
            }
        };
        let default = all(&["uv-default-index", "uv-index-url"]);
        hand_on(
            first("index-url"),
            default,
            ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
            true,
        );
        let more = all(&["uv-index", "uv-extra-index-url"]);
        hand_on(
            first("extra-index-url"),
            more,
            ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
            false,
        );
        hand_on(
            first("find-links"),
            all(&["uv-find-links"]),
            ("PIP_FIND_LINKS", "UV_FIND_LINKS"),
            false,
        );
        hand_on(
            first("no-index"),
            all(&["uv-no-index"]),
            ("PIP_NO_INDEX", "UV_NO_INDEX"),
            true,
        );
        (for_pip, for_uv)
    }

    /// Settings by the names of pip's options, from variables and files.
    fn settings(&self) -> Vec<(String, String)> {
        let mut settings = Vec::new();
        for (variable, value) in self.variables {
            // pip takes an empty variable for none.
            if value.is_empty() {
                continue;
            }
            if let Some(option) = variable.strip_prefix("PIP_") {
                settings.push((option_name(option), value.clone()));
            } else if variable == "UV_FIND_LINKS" {
                settings.push((option_name(variable), value.replace(',', " ")));
            } else if variable.starts_with("UV_INDEX")
                || ["UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_NO_INDEX"]
                    .contains(&variable.as_str())
            {
                let is_login = variable.ends_with("_PASSWORD") || variable.ends_with("_USERNAME");
                if !is_login {
                    settings.push((option_name(variable), value.clone()));
                }
            }
        }
        for file in self.configuration_files() {
            if let Ok(text) = fs::read_to_string(file) {
                settings.extend(parse_configuration(&text));
            }
        }
        let of_uv = UvConfiguration::read(self.directory, self.variables, self.system);
        let mut add = |name: &str, values: Vec<String>| {
            if !values.is_empty() {
                settings.push((name.to_owned(), values.join(" ")));
            }
        };
        let url = |index: Index| index.url;
        add(
            "uv-default-index",
            of_uv.default_index.into_iter().map(url).collect(),
        );
        add("uv-index", of_uv.indexes.into_iter().map(url).collect());
        add("uv-find-links", of_uv.find_links);
        if of_uv.no_index {
            add("uv-no-index", vec!["1".to_owned()]);
        }
        settings
    }

    /// The files that pip reads (pip's "Configuration", "Location").
    fn configuration_files(&self) -> Vec<PathBuf> {
        let variable = |name: &str| {
            self.variables
                .get(name)
                .map(String::as_str)
                .filter(|value| !value.is_empty())
        };
        let named = variable("PIP_CONFIG_FILE");
        if named == Some("/dev/null") {
            return Vec::new();
        }
        let mut files = vec![self.system.join("pip.conf")];
        match variable("XDG_CONFIG_DIRS") {
            Some(places) => {
                files.extend(std::env::split_paths(places).map(|p| p.join("pip/pip.conf")));
            }
            None => files.push(self.system.join("xdg/pip/pip.conf")),
        }
        let named = named.map(|file| self.path(file));
        if !named.as_deref().is_some_and(Path::exists) {
            let home = variable("HOME").map(Path::new);
            files.extend(home.map(|home| home.join(".pip/pip.conf")));
            let user = variable("XDG_CONFIG_HOME")
                .map(PathBuf::from)
                .or_else(|| home.map(|home| home.join(".config")));
            files.extend(user.map(|user| user.join("pip/pip.conf")));
            files.extend(home.map(|home| home.join("Library/Application Support/pip/pip.conf")));
        }
        let prefix = self.executable.parent().and_then(Path::parent);
        files.extend(prefix.map(|prefix| prefix.join("pip.conf")));
        files.extend(named);
        files
    }

    fn path(&self, text: &str) -> PathBuf {
        let text = text.strip_prefix("file://").unwrap_or(text);
        match (text.strip_prefix("~/"), self.variables.get("HOME")) {
            (Some(rest), Some(home)) => Path::new(home).join(rest),
            _ => PathBuf::from(text),
        }
    }

    /// A place of `--find-links`: a folder by the archives in it, a page by its text, an
    /// address by itself. As pip does, it is looked for below `directory` first.
    fn place(&self, directory: &Path, place: &str) -> ObjectDigest {
        let place = expand(place, |name| self.variables.get(name).cloned());
        if place.contains("://") && !place.starts_with("file://") {
            return ObjectDigest::of(strip_credentials(&place).as_bytes());
        }
        let own = self.path(&place);
        let beside = directory.join(&own);
        let path = if beside.exists() { beside } else { own };
        match fs::read_dir(&path) {
            Ok(entries) => {
                let mut lines: Vec<String> = entries.flatten().filter_map(archive_line).collect();
                lines.sort();
                ObjectDigest::of(lines.concat().as_bytes())
            }
            Err(_) => digest_of_file(&path),
        }
    }
}

/// Name, size and time of an archive that pip may take.
fn archive_line(entry: fs::DirEntry) -> Option<String> {
    let name = entry.file_name().to_string_lossy().into_owned();
    let is_archive = [".whl", ".gz", ".zip", ".bz2", ".xz", ".tgz", ".tar"]
        .iter()
        .any(|suffix| name.ends_with(suffix));
    // Not the link: what it leads to.
    let metadata = fs::metadata(entry.path()).ok()?;
    let modified = metadata
        .modified()
        .ok()?
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    is_archive.then(|| format!("{name}\0{}\0{modified}\n", metadata.len()))
}

fn digest_of_file(path: &Path) -> ObjectDigest {
    ObjectDigest::of(&fs::read(path).unwrap_or_default())
}

/// `EXTRA_INDEX_URL` as `extra-index-url`.
fn option_name(text: &str) -> String {
    text.trim().to_lowercase().replace('_', "-")
}

/// The settings of a `pip.conf`, of whatever section.
fn parse_configuration(text: &str) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';', '[']) {
            continue;
        }
        let continues = line.starts_with(char::is_whitespace);
        match (settings.last_mut(), trimmed.split_once(['=', ':'])) {
            (Some((_, value)), _) if continues => {
                value.push('\n');
                value.push_str(trimmed);
            }
            (_, Some((name, value))) => {
                settings.push((option_name(name), value.trim().to_owned()));
            }
            _ => {}
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        directory: tempfile::TempDir,
        variables: BTreeMap<String, String>,
    }

    impl Bench {
        fn new(requirements: &str) -> Self {
            let bench = Self {
                directory: tempfile::tempdir().unwrap(),
                variables: BTreeMap::new(),
            };
            bench.write("requirements.txt", requirements);
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), text).unwrap();
        }

        fn set(&mut self, name: &str, value: &str) {
            self.variables.insert(name.to_owned(), value.to_owned());
        }

        fn observe(&self) -> Digests {
            let requirements = Requirements::read(&[self.path("requirements.txt")]).unwrap();
            Surroundings {
                variables: &self.variables,
                executable: &self.path("venv/bin/python"),
                system: &self.path("etc"),
                directory: &self.path("project"),
            }
            .observe(&requirements)
        }

        fn changes(&mut self, change: impl FnOnce(&mut Self)) -> bool {
            let before = self.observe();
            change(self);
            before != self.observe()
        }
    }

    #[test]
    fn an_archive_that_is_replaced_in_a_folder_counts() {
        let mut bench = Bench::new("--find-links ./wh\nx\n");
        bench.write("wh/x-1-py3-none-any.whl", "one");
        assert!(bench.changes(|b| b.write("wh/x-1-py3-none-any.whl", "other")));
        assert!(bench.changes(|b| b.write("wh/x-2-py3-none-any.whl", "two")));
        assert!(!bench.changes(|b| b.write("wh/README", "text")));

        let mut bench = Bench::new("x\n");
        let folder = bench.path("elsewhere").display().to_string();
        bench.set("PIP_FIND_LINKS", &folder);
        assert!(bench.changes(|b| b.write("elsewhere/x-1.tar.gz", "one")));
    }

    #[test]
    fn settings_count_unless_they_only_say_how_to_connect() {
        let mut bench = Bench::new("x\n");
        for name in [
            "PIP_INDEX_URL",
            "PIP_EXTRA_INDEX_URL",
            "PIP_NO_BINARY",
            "PIP_PRE",
            "UV_INDEX_URL",
            "UV_DEFAULT_INDEX",
        ] {
            assert!(bench.changes(|b| b.set(name, "https://a.test/1")), "{name}");
            assert!(bench.changes(|b| b.set(name, "https://a.test/2")), "{name}");
        }
        for name in [
            "PIP_CERT",
            "PIP_CLIENT_CERT",
            "PIP_PROXY",
            "PIP_TIMEOUT",
            "PIP_CACHE_DIR",
            "PIP_ROOT_USER_ACTION",
            "UV_INDEX_PRIVATE_PASSWORD",
            "HOME",
        ] {
            assert!(!bench.changes(|b| b.set(name, "/some/thing")), "{name}");
        }
        // A token that is renewed every hour decides nothing.
        bench.set("PIP_INDEX_URL", "https://oauth:one@a.test/");
        assert!(!bench.changes(|b| b.set("PIP_INDEX_URL", "https://oauth:two@a.test/")));
    }

    #[test]
    fn configuration_and_constraint_files_count_with_what_they_say() {
        for place in ["etc/pip.conf", "home/.config/pip/pip.conf", "venv/pip.conf"] {
            let mut bench = Bench::new("x\n");
            let home = bench.path("home").display().to_string();
            bench.set("HOME", &home);
            let text = "[global]\nextra-index-url =\n    https://a.test/\n    https://b.test/\n";
            assert!(bench.changes(|b| b.write(place, text)), "{place}");
            let other = text.replace("b.test", "c.test");
            assert!(bench.changes(|b| b.write(place, &other)), "{place}");
            let more = format!("{other}timeout = 60\n; a comment\n");
            assert!(!bench.changes(|b| b.write(place, &more)), "{place}");
            bench.set("PIP_CONFIG_FILE", "/dev/null");
            assert!(!bench.changes(|b| b.write(place, text)), "{place}");
        }
        let mut bench = Bench::new("x\n");
        bench.write("constraints.txt", "y<2\n");
        let path = bench.path("constraints.txt").display().to_string();
        assert!(bench.changes(|b| b.set("PIP_CONSTRAINT", &path)));
        assert!(bench.changes(|b| b.write("constraints.txt", "y<3\n")));
    }

    #[test]
    fn pip_and_uv_are_told_what_the_other_knows() {
        let bench = Bench::new("x\n");
        let told = |bench: &Bench| {
            Surroundings {
                variables: &bench.variables,
                executable: &bench.path("venv/bin/python"),
                system: &bench.path("etc"),
                directory: &bench.path("project"),
            }
            .for_each_other()
        };
        assert_eq!(told(&bench), (Vec::new(), Vec::new()));
        bench.write(
            "etc/pip.conf",
            "[global]\nindex-url = https://t@a.test/\nextra-index-url =\n  https://b.test/\n  https://c.test/\n",
        );
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let for_uv = vec![
            own("UV_DEFAULT_INDEX", "https://t@a.test/"),
            own("UV_INDEX", "https://b.test/ https://c.test/"),
        ];
        assert_eq!(told(&bench), (Vec::new(), for_uv));

        let mut bench = Bench::new("x\n");
        bench.set("UV_INDEX_URL", "https://a.test/");
        bench.set("UV_INDEX", "private=https://b.test/");
        let for_pip = vec![
            own("PIP_INDEX_URL", "https://a.test/"),
            own("PIP_EXTRA_INDEX_URL", "https://b.test/"),
        ];
        assert_eq!(told(&bench), (for_pip, Vec::new()));
        // Each keeps what it was told itself.
        bench.set("PIP_INDEX_URL", "https://c.test/");
        bench.set("PIP_EXTRA_INDEX_URL", "https://d.test/");
        assert_eq!(told(&bench), (Vec::new(), Vec::new()));
    }

    #[test]
    fn variables_within_lines_count_but_are_not_kept() {
        let mut bench = Bench::new("x @ https://${USER}:${TOKEN}@${HOST}/x-${VERSION}.zip\n");
        assert!(bench.changes(|b| b.set("VERSION", "1")));
        assert!(bench.changes(|b| b.set("VERSION", "hunter2")));
        assert!(!format!("{:?}", bench.observe()).contains("hunter2"));
        bench.set("USER", "me");
        bench.set("HOST", "h.test");
        bench.set("TOKEN", "one");
        assert!(!bench.changes(|b| b.set("TOKEN", "two")));
        assert!(!bench.changes(|b| b.set("OTHER", "1")));
    }

    #[test]
    fn where_every_line_has_its_hash_the_index_does_not_count() {
        let mut bench = Bench::new("x==1 --hash=sha256:00\ny==2 \\\n  --hash=sha256:11\n");
        assert!(!bench.changes(|b| b.set("PIP_INDEX_URL", "https://a.test/")));
        assert!(!bench.changes(|b| b.set("UV_INDEX_URL", "https://a.test/")));
        assert!(!bench.changes(|b| b.write("etc/pip.conf", "[global]\nindex-url = b\n")));
        assert!(bench.changes(|b| b.set("PIP_NO_BINARY", ":all:")));
    }
}
