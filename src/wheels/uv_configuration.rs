//! What uv's own configuration files say about where packages are: `uv.toml`, and `[tool.uv]` of
//! `pyproject.toml` (uv's "Configuration files" and "Package indexes").
//!
//! pip reads none of them, and is told.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where uv looks for packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UvConfiguration {
    /// The index that stands for PyPI, if there is one.
    pub(super) default_index: Option<Index>,
    /// Further indexes, the preferred ones first.
    pub(super) indexes: Vec<Index>,
    /// Folders and pages with archives.
    pub(super) find_links: Vec<String>,
    /// Whether no index is asked.
    pub(super) no_index: bool,
}

/// One index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    /// By which variables name its login.
    pub(super) name: Option<String>,
    /// Its address, or a folder.
    pub(super) url: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Written {
    index: Vec<WrittenIndex>,
    index_url: Option<String>,
    extra_index_url: Vec<String>,
    find_links: Vec<String>,
    no_index: Option<bool>,
    pip: Option<Box<Written>>,
}

#[derive(Deserialize)]
struct WrittenIndex {
    name: Option<String>,
    url: String,
    #[serde(default)]
    default: bool,
    /// Such an index is only for what `tool.uv.sources` names.
    #[serde(default)]
    explicit: bool,
    format: Option<String>,
}

impl UvConfiguration {
    /// Reads what uv would read in `directory`: the nearest project's file, the user's, the
    /// machine's (below `system`, which is `/etc`); or the one that `UV_CONFIG_FILE` names. A file
    /// that cannot be read counts for nothing: uv itself says what is wrong with it.
    pub(super) fn read(
        directory: &Path,
        variables: &BTreeMap<String, String>,
        system: &Path,
    ) -> Self {
        let mut read = Self::default();
        for path in files(directory, variables, system) {
            let folder = path.parent().unwrap_or(directory);
            if let Some(written) = parse(&path) {
                read.add(written, folder);
            }
        }
        read
    }

    /// Adds what a file says that counts less than those before it.
    fn add(&mut self, written: Written, folder: &Path) {
        let place = |text: String| match text.contains("://") {
            true => text,
            false => folder.join(text).display().to_string(),
        };
        for one in written.index {
            let index = Index {
                name: one.name,
                url: place(one.url),
            };
            if one.explicit {
                continue;
            }
            if one.format.as_deref() == Some("flat") {
                self.find_links.push(index.url);
            } else if one.default {
                self.default_index.get_or_insert(index);
            } else {
                self.indexes.push(index);
            }
        }
        let unnamed = |url| Index {
            name: None,
            url: place(url),
        };
        if let Some(pip) = written.pip {
            self.add(*pip, folder);
        }
        if let Some(url) = written.index_url {
            self.default_index.get_or_insert(unnamed(url));
        }
        self.indexes
            .extend(written.extra_index_url.into_iter().map(unnamed));
        self.find_links
            .extend(written.find_links.into_iter().map(place));
        self.no_index |= written.no_index.unwrap_or_default();
    }
}

fn parse(path: &Path) -> Option<Written> {
    let table: toml::Table = fs::read_to_string(path).ok()?.parse().ok()?;
    let table = match path
        .file_name()
        .is_some_and(|name| name == "pyproject.toml")
    {
        true => table.get("tool")?.get("uv")?.clone(),
        false => toml::Value::Table(table),
    };
    table.try_into().ok()
}

/// The files, the one that counts most first.
fn files(directory: &Path, variables: &BTreeMap<String, String>, system: &Path) -> Vec<PathBuf> {
    let variable = |name: &str| {
        let value = variables.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    };
    if let Some(named) = variable("UV_CONFIG_FILE") {
        return vec![directory.join(named)];
    }
    if variable("UV_NO_CONFIG").is_some_and(|value| !matches!(value, "0" | "false")) {
        return Vec::new();
    }
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let of_project = directory.ancestors().find_map(|folder| {
        let own = folder.join("uv.toml");
        let section = folder.join("pyproject.toml");
        let has_section = || parse(&section).is_some();
        own.is_file()
            .then_some(own)
            .or_else(|| has_section().then_some(section.clone()))
    });
    let of_user = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(variable("HOME")?).join(".config")));
    let of_machine = system.join("uv/uv.toml");
    let of_user = of_user.map(|folder| folder.join("uv/uv.toml"));
    of_project
        .into_iter()
        .chain(of_user)
        .chain([of_machine])
        .collect()
}

/// An index's address with the login that `UV_INDEX_NAME_USERNAME` and `UV_INDEX_NAME_PASSWORD`
/// say, if it has none of its own.
pub(super) fn with_login(
    url: &str,
    name: Option<&str>,
    variables: &BTreeMap<String, String>,
) -> String {
    let Some((name, mut parsed)) = name.zip(url::Url::parse(url).ok()) else {
        return url.to_owned();
    };
    let name: String = name
        .chars()
        .map(|c| match c.is_ascii_alphanumeric() {
            true => c.to_ascii_uppercase(),
            false => '_',
        })
        .collect();
    let said = |what: &str| variables.get(&format!("UV_INDEX_{name}_{what}"));
    if let (true, Some(user)) = (parsed.username().is_empty(), said("USERNAME")) {
        // Addresses that can have no login keep none.
        let _ = parsed.set_username(user);
    }
    if let (None, Some(password)) = (parsed.password(), said("PASSWORD")) {
        let _ = parsed.set_password(Some(password));
    }
    parsed.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn index(name: Option<&str>, url: &str) -> Index {
        Index {
            name: name.map(str::to_owned),
            url: url.to_owned(),
        }
    }

    #[test]
    fn the_nearest_file_counts_most() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let home = root.join("home").display().to_string();
        let mut variables = BTreeMap::from([("HOME".to_owned(), home)]);
        let read = |variables: &BTreeMap<String, String>| {
            UvConfiguration::read(&root.join("work/project"), variables, &root.join("etc"))
        };
        assert_eq!(read(&variables), UvConfiguration::default());
        write(
            root,
            "etc/uv/uv.toml",
            "extra-index-url = ['https://machine.test/']\n",
        );
        write(
            root,
            "home/.config/uv/uv.toml",
            "index-url = 'https://user.test/'\n[pip]\nno-index = true\n",
        );
        write(
            root,
            "work/project/pyproject.toml",
            "[project]\nname = 'x'\n",
        );
        write(
            root,
            "work/pyproject.toml",
            "[[tool.uv.index]]\nname = 'own'\nurl = 'https://own.test/'\n\
             [[tool.uv.index]]\nurl = 'https://torch.test/'\nexplicit = true\n\
             [[tool.uv.index]]\nurl = 'wheels'\nformat = 'flat'\n\
             [[tool.uv.index]]\nurl = 'https://default.test/'\ndefault = true\n",
        );
        assert_eq!(
            read(&variables),
            UvConfiguration {
                default_index: Some(index(None, "https://default.test/")),
                indexes: vec![
                    index(Some("own"), "https://own.test/"),
                    index(None, "https://machine.test/"),
                ],
                find_links: vec![root.join("work/wheels").display().to_string()],
                no_index: true,
            }
        );
        // uv.toml is read in the place of its neighbour.
        write(root, "work/uv.toml", "find-links = ['more']\n");
        assert_eq!(
            read(&variables).default_index,
            Some(index(None, "https://user.test/"))
        );
        variables.insert("UV_NO_CONFIG".to_owned(), "1".to_owned());
        assert_eq!(read(&variables), UvConfiguration::default());
    }

    #[test]
    fn logins_come_from_variables() {
        let variables = BTreeMap::from([
            ("UV_INDEX_MY_OWN_USERNAME".to_owned(), "me".to_owned()),
            ("UV_INDEX_MY_OWN_PASSWORD".to_owned(), "a/b".to_owned()),
        ]);
        let url = "https://own.test/simple/";
        assert_eq!(
            with_login(url, Some("my-own"), &variables),
            "https://me:a%2Fb@own.test/simple/"
        );
        assert_eq!(with_login(url, Some("other"), &variables), url);
        assert_eq!(with_login(url, None, &variables), url);
        assert_eq!(with_login("/folder", Some("my-own"), &variables), "/folder");
    }
}
