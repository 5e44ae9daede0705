//! Where a base's Python looks for packages.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;

use forebay_store::{Realisation, Recipe, Store};
use serde::{Deserialize, Serialize};

use super::ImageError;
use super::decompress::decompressed;
use super::guard::{Guarded, MAX_LAYER};
use crate::oci::{Descriptor, Sha256Digest};
use crate::registry::Registry;
use crate::wheels::InstallScheme;

/// The output of the realisation that holds the answer.
const PYTHON: &str = "python";

/// The CPython of a base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasePython {
    /// 3.
    pub major: u8,
    /// For example 11.
    pub minor: u8,
    /// Where pip would install.
    pub scheme: InstallScheme,
    /// Whether its C library is musl, as Alpine's is: wheels for glibc do not run there.
    pub is_musl: bool,
}

impl BasePython {
    /// The Python of the official images: built from source under `/usr/local`.
    pub fn official(major: u8, minor: u8) -> Self {
        let interpreter = format!("/usr/local/bin/python{major}.{minor}");
        Self {
            major,
            minor,
            scheme: InstallScheme::under(
                "usr/local",
                (major, minor),
                "site-packages",
                &interpreter,
            ),
            is_musl: false,
        }
    }

    /// Official Python images say `PYTHON_VERSION`.
    pub(super) fn from_environment(environment: &BTreeMap<String, String>) -> Option<Self> {
        let mut parts = environment.get("PYTHON_VERSION")?.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        Some(Self::official(major, minor))
    }
}

/// What is of interest in the layers.
#[derive(Debug, Default)]
struct Seen {
    /// Interpreters: directory and minor version.
    interpreters: BTreeSet<(&'static str, u8)>,
    /// Where `python3` points to, by directory.
    defaults: BTreeMap<&'static str, u8>,
    is_debian: bool,
    is_alpine: bool,
}

/// Directories of interpreters, the first wins, as in PATH.
const DIRECTORIES: [&str; 2] = ["usr/local/bin", "usr/bin"];

fn minor_of(name: &str) -> Option<u8> {
    name.strip_prefix("python3.")?.parse().ok()
}

impl Seen {
    fn entry(&mut self, path: &str, link: Option<&str>) {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        // Debian's Python brings this folder, and its interpreter looks there.
        self.is_debian |= path.starts_with("usr/lib/python3/dist-packages");
        self.is_alpine |= path == "etc/alpine-release";
        for directory in DIRECTORIES {
            let Some(name) = path
                .strip_prefix(directory)
                .and_then(|rest| rest.strip_prefix('/'))
            else {
                continue;
            };
            if let Some(minor) = name.strip_prefix(".wh.").and_then(minor_of) {
                self.interpreters.remove(&(directory, minor));
            } else if let Some(minor) = minor_of(name) {
                self.interpreters.insert((directory, minor));
            } else if name == "python3"
                && let Some(minor) = link.and_then(|l| minor_of(l.rsplit('/').next()?))
            {
                self.defaults.insert(directory, minor);
            }
        }
    }

    fn layer(&mut self, reader: impl Read) -> io::Result<()> {
        let (guarded, allowance) = Guarded::new(reader.take(MAX_LAYER));
        let mut archive = tar::Archive::new(guarded);
        for entry in archive.entries()? {
            let entry = entry?;
            allowance.enter(&entry)?;
            let path = entry.path_bytes();
            let link = entry.link_name_bytes();
            self.entry(
                &String::from_utf8_lossy(&path),
                link.map(|link| String::from_utf8_lossy(&link).into_owned())
                    .as_deref(),
            );
        }
        Ok(())
    }

    fn python(&self) -> Option<BasePython> {
        let directory = DIRECTORIES
            .into_iter()
            .find(|directory| self.interpreters.iter().any(|(d, _)| d == directory))?;
        let minors = self.interpreters.iter().filter(|(d, _)| *d == directory);
        let highest = minors.map(|(_, minor)| *minor).max()?;
        let default = self.defaults.get(directory).copied();
        let minor = default.unwrap_or(highest);
        if directory == "usr/local/bin" {
            return Some(BasePython {
                is_musl: self.is_alpine,
                ..BasePython::official(3, minor)
            });
        }
        let interpreter = match default {
            Some(_) => "/usr/bin/python3".to_owned(),
            None => format!("/usr/bin/python3.{minor}"),
        };
        // Debian's pip installs beside what apt installs, and so does Fedora's;
        // Alpine's Python has one place for both.
        let (prefix, packages) = match (self.is_debian, self.is_alpine) {
            (true, _) => ("usr/local", "dist-packages"),
            (_, true) => ("usr", "site-packages"),
            _ => ("usr/local", "site-packages"),
        };
        Some(BasePython {
            major: 3,
            minor,
            scheme: InstallScheme::under(prefix, (3, minor), packages, &interpreter),
            is_musl: self.is_alpine,
        })
    }
}

/// Reads the base's layers once; the answer is kept under the manifest's digest.
pub(super) async fn find(
    registry: &Arc<dyn Registry>,
    layers: &[Descriptor],
    manifest: &Sha256Digest,
    name: &str,
    store: &Store,
) -> Result<BasePython, ImageError> {
    let key = Recipe::new("base-python", 2, &manifest)?.key();
    let known = store.realisation(&key)?;
    if let Some(answer) = known.as_ref().and_then(|known| known.outputs.get(PYTHON))
        && let Ok(python) = serde_json::from_slice(&store.read(answer)?)
    {
        return Ok(python);
    }
    let refused = |problem: String| ImageError::Base {
        name: name.to_owned(),
        problem,
    };
    let mut seen = Seen::default();
    for layer in layers {
        let kind = layer.media_type.as_str();
        if !["tar", "gzip", "zstd"]
            .iter()
            .any(|end| kind.ends_with(end))
        {
            return Err(refused(format!(
                "it does not say PYTHON_VERSION, and its layers ({kind}) cannot be read"
            )));
        }
        let reader = registry.blob(layer).await?;
        seen = tokio::task::spawn_blocking(move || {
            seen.layer(decompressed(reader)?)?;
            Ok::<_, std::io::Error>(seen)
        })
        .await
        .map_err(|error| refused(error.to_string()))?
        .map_err(ImageError::io(format!(
            "cannot read the layer {} of the base {name}",
            layer.digest
        )))?;
    }
    let python = seen.python().ok_or_else(|| {
        refused(
            "it has no Python in /usr/local/bin or /usr/bin, and does not say PYTHON_VERSION"
                .to_owned(),
        )
    })?;
    let mut batch = store.begin()?;
    let answer = batch.put(&super::json(&python)?)?;
    let outputs = BTreeMap::from([(PYTHON.to_owned(), answer.digest)]);
    batch.realise(&key, &Realisation { outputs })?;
    batch.commit()?;
    Ok(python)
}

/// What one layer says of a Python.
#[cfg(any(test, fuzzing))]
pub(super) fn look_through(layer: impl Read) {
    let mut seen = Seen::default();
    if seen.layer(layer).is_ok() {
        seen.python();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(entries: &[(&str, Option<&str>)]) -> Option<BasePython> {
        let mut seen = Seen::default();
        for (path, link) in entries {
            seen.entry(path, *link);
        }
        seen.python()
    }

    #[test]
    fn each_distribution_has_its_place_for_packages() {
        let debian = seen(&[
            ("./usr/lib/python3/dist-packages/", None),
            ("./usr/bin/python3.11", None),
            ("./usr/bin/python3", Some("python3.11")),
        ])
        .unwrap();
        assert_eq!(
            debian.scheme.purelib,
            "usr/local/lib/python3.11/dist-packages"
        );
        assert_eq!(debian.scheme.interpreter, "/usr/bin/python3");

        let alpine = seen(&[("etc/alpine-release", None), ("usr/bin/python3.12", None)]).unwrap();
        assert_eq!(alpine.scheme.purelib, "usr/lib/python3.12/site-packages");
        assert!(alpine.is_musl && !debian.is_musl);
        let built = seen(&[
            ("etc/alpine-release", None),
            ("usr/local/bin/python3.12", None),
        ]);
        assert!(built.unwrap().is_musl);

        let built = seen(&[
            ("usr/lib/python3/dist-packages", None),
            ("usr/bin/python3.11", None),
            ("usr/local/bin/python3.12", None),
            ("usr/local/bin/python3.13", None),
            ("usr/local/bin/python3", Some("/usr/local/bin/python3.12")),
        ])
        .unwrap();
        assert_eq!(built, BasePython::official(3, 12));
    }

    #[test]
    fn no_python_is_no_python() {
        assert_eq!(
            seen(&[("usr/bin/python", None), ("opt/python3.11", None)]),
            None
        );
        assert_eq!(
            seen(&[
                ("usr/bin/python3.11", None),
                ("usr/bin/.wh.python3.11", None)
            ]),
            None
        );
    }

    /// An archive with one file whose long name (GNU) or PAX record is `length` bytes.
    fn with_headers(kind: tar::EntryType, length: usize) -> Vec<u8> {
        let mut extension = tar::Header::new_gnu();
        extension.set_entry_type(kind);
        extension.set_size(length as u64);
        extension.set_cksum();
        let mut archive = tar::Builder::new(Vec::new());
        let mut big = tar::Header::new_gnu();
        big.set_size(1 << 20);
        big.set_mode(0o644);
        let content = io::repeat(0).take(1 << 20);
        archive.append_data(&mut big, "big", content).unwrap();
        let start = format!("{length} comment=");
        let text = format!("{start}{}\n", "x".repeat(length - start.len() - 1));
        archive.append(&extension, text.as_bytes()).unwrap();
        let mut file = tar::Header::new_gnu();
        file.set_size(0);
        file.set_path("usr/bin/python3.11").unwrap();
        file.set_cksum();
        archive.append(&file, io::empty()).unwrap();
        archive.into_inner().unwrap()
    }

    #[test]
    fn headers_that_would_fill_the_memory_are_refused() {
        for kind in [
            tar::EntryType::GNULongName,
            tar::EntryType::GNULongLink,
            tar::EntryType::XHeader,
        ] {
            let modest = with_headers(kind, 4000);
            assert!(Seen::default().layer(modest.as_slice()).is_ok(), "{kind:?}");
            let huge = with_headers(kind, 1 << 20);
            let refused = Seen::default().layer(huge.as_slice()).unwrap_err();
            assert!(refused.to_string().contains("of headers"), "{refused}");
        }
        // A global record is an entry of its own, which nothing reads whole.
        let global = with_headers(tar::EntryType::XGlobalHeader, 1 << 20);
        let mut seen = Seen::default();
        seen.layer(global.as_slice()).unwrap();
        assert!(seen.python().is_some());
    }

    #[test]
    fn official_images_say_their_version() {
        let environment =
            |version: &str| BTreeMap::from([("PYTHON_VERSION".to_owned(), version.to_owned())]);
        let python = BasePython::from_environment(&environment("3.7.9")).unwrap();
        assert_eq!(
            python.scheme.purelib,
            "usr/local/lib/python3.7/site-packages"
        );
        assert_eq!(BasePython::from_environment(&environment("x")), None);
    }
}
