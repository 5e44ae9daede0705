//! `[tool.forebay]` in `pyproject.toml`: what BigFlow's files have no word for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names::EnvironmentName;

/// The format in which DAG files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum DagFormat {
    /// Byte for byte what BigFlow 1.11.3 writes.
    #[serde(rename = "bigflow-1.11")]
    Bigflow1_11,
    /// The same DAG with that format's faults mended.
    #[default]
    #[serde(rename = "default")]
    Default,
}

impl DagFormat {
    /// The format's name in settings and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bigflow1_11 => "bigflow-1.11",
            Self::Default => "default",
        }
    }
}

/// What a DAG's id is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DagIds {
    /// `WORKFLOW__vVERSION__START`, as BigFlow makes it: each new version is a new DAG.
    #[default]
    Versioned,
    /// The workflow's id: Airflow keeps the DAG's history.
    Stable,
}

/// Which engine runs the lines of a Dockerfile that need a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// The first that works: docker, podman, buildah.
    #[default]
    Auto,
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// Buildah.
    Buildah,
    /// None: such lines are refused, unless their layers are there.
    None,
}

impl std::str::FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [
            ("auto", Self::Auto),
            ("docker", Self::Docker),
            ("podman", Self::Podman),
            ("buildah", Self::Buildah),
            ("none", Self::None),
        ];
        let found = known.into_iter().find(|(name, _)| *name == text);
        found
            .map(|(_, choice)| choice)
            .ok_or_else(|| format!("{text:?} is none of auto, docker, podman, buildah and none"))
    }
}

/// `[tool.forebay]`. Every key may be absent; an unknown one is an error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `[tool.forebay.dags]`.
    pub dags: DagSettings,
    /// `cache`, or `[tool.forebay.cache]`.
    pub cache: CacheSettings,
    /// `[tool.forebay.engine]`.
    pub engine: EngineSettings,
    /// `[tool.forebay.image]`.
    pub image: ImageSettings,
    /// `[tool.forebay.environments.NAME]`.
    pub environments: BTreeMap<EnvironmentName, EnvironmentSettings>,
}

/// Caches that are shared with others: `cache = "URL"`, `cache = ["URL", …]`, or
/// `[tool.forebay.cache]` with `urls` and `trusted_keys`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "WrittenCache")]
pub struct CacheSettings {
    /// Where they are, in the order in which they are asked.
    pub urls: Vec<String>,
    /// Whose entries count: `DOMAIN:BASE64`.
    pub trusted_keys: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenCache {
    One(String),
    Several(Vec<String>),
    Table(CacheTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct CacheTable {
    urls: Vec<String>,
    trusted_keys: Vec<String>,
}

impl From<WrittenCache> for CacheSettings {
    fn from(written: WrittenCache) -> Self {
        match written {
            WrittenCache::One(url) => Self {
                urls: vec![url],
                ..Self::default()
            },
            WrittenCache::Several(urls) => Self {
                urls,
                ..Self::default()
            },
            WrittenCache::Table(table) => Self {
                urls: table.urls,
                trusted_keys: table.trusted_keys,
            },
        }
    }
}

/// `[tool.forebay.dags]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DagSettings {
    /// How DAG files are written.
    pub format: DagFormat,
    /// What their DAGs are called.
    pub ids: DagIds,
}

/// `[tool.forebay.engine]`: how the lines of a Dockerfile run that need a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct EngineSettings {
    /// Which engine.
    pub program: EngineChoice,
    /// More arguments of the engine's `build`, for example `--network=host`.
    pub arguments: Vec<String>,
    /// Whether lines that only install system packages run before all others, and so once
    /// for each base, not once for each change of what COPY brings.
    pub hoist_packages: bool,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            program: EngineChoice::default(),
            arguments: Vec::new(),
            hoist_packages: true,
        }
    }
}

/// Whether the image gets `.pyc` files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BytecodeSetting {
    /// As forebay.lock says; the first build writes down whether this machine can make them.
    #[default]
    Auto,
    /// It has them, or is not built.
    On,
    /// It has none: each start of a job compiles anew.
    Off,
}

/// How the layers that a build makes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompressionSetting {
    /// Those of wheels not at all: they are spliced from the streams that the wheels have.
    #[default]
    Splice,
    /// Each anew as one gzip stream: 3 % smaller, for several times the work, and for readers that
    /// stop at the end of the first member.
    Gzip,
    /// Each anew as one zstd stream: smaller and quicker to unpack. Docker older than 23 cannot
    /// pull it.
    Zstd,
}

/// `[tool.forebay.image]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSettings {
    /// Whether the image gets `.pyc` files.
    pub bytecode: BytecodeSetting,
    /// How layers are compressed.
    pub compression: CompressionSetting,
    /// What the image is built for, as OCI names it; of several an index is made. Otherwise
    /// `linux/amd64`.
    pub platforms: Vec<String>,
    /// Whether the project's own build makes the wheel that the image has.
    pub wheel: bool,
    /// FROM. With it this section describes the image, and the Dockerfile is not read.
    pub base: Option<String>,
    /// Requirement files to install; otherwise the project's own.
    pub requirements: Option<Vec<String>>,
    /// Further requirements, as `pip install` takes them.
    pub packages: Vec<String>,
    /// ENV.
    pub env: BTreeMap<String, String>,
    /// LABEL.
    pub labels: BTreeMap<String, String>,
    /// WORKDIR.
    pub workdir: Option<String>,
    /// COPY.
    pub copy: Vec<CopySetting>,
    /// USER.
    pub user: Option<String>,
    /// EXPOSE.
    pub ports: Vec<String>,
    /// VOLUME.
    pub volumes: Vec<String>,
    /// ENTRYPOINT.
    pub entrypoint: Option<Vec<String>>,
    /// CMD.
    pub command: Option<Vec<String>>,
    /// STOPSIGNAL.
    pub stop_signal: Option<String>,
}

impl ImageSettings {
    /// Whether there is anything here that a Dockerfile would say.
    pub fn declares_anything(&self) -> bool {
        *self
            != Self {
                bytecode: self.bytecode,
                compression: self.compression,
                platforms: self.platforms.clone(),
                wheel: self.wheel,
                ..Self::default()
            }
    }
}

/// A file or folder of the project that the image gets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopySetting {
    /// Relative to the project's folder.
    pub from: String,
    /// In the image; a relative path is below `workdir`.
    pub to: String,
}

/// `[tool.forebay.environments.NAME]`: only what cannot stand in `deployment_config.py`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvironmentSettings {
    /// Replaces the Dockerfile's FROM in this environment, for example `scratch`.
    pub base: Option<String>,
    /// Which CPython a base without one is meant for, for example `3.11`.
    pub python: Option<String>,
    /// Where in the bucket the DAG files go, for example `dags/team/`.
    pub dags_prefix: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named_with_the_known_ones() {
        let error = toml::from_str::<Settings>("[dags]\nfromat = 'default'")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("fromat") && error.contains("format"),
            "{error}"
        );
        let settings: Settings =
            toml::from_str("[engine]\nprogram = 'buildah'\nhoist-packages = false").unwrap();
        assert_eq!(settings.engine.program, EngineChoice::Buildah);
        assert!(!settings.engine.hoist_packages && Settings::default().engine.hoist_packages);
        assert_eq!("none".parse(), Ok(EngineChoice::None));
        assert!("nerdctl".parse::<EngineChoice>().is_err());
        let error = toml::from_str::<Settings>("[environments.dev]\nbasis = 'x'")
            .unwrap_err()
            .to_string();
        assert!(error.contains("`base`, `python`"), "{error}");
    }

    #[test]
    fn a_cache_is_one_address_or_several_or_a_table() {
        for text in [
            "cache = 'gs://team'",
            "cache = ['gs://team']",
            "[cache]\nurls = ['gs://team']",
        ] {
            let settings: Settings = toml::from_str(text).unwrap();
            assert_eq!(settings.cache.urls, ["gs://team"], "{text}");
        }
        let settings: Settings = toml::from_str("[cache]\ntrusted_keys = ['main:x']").unwrap();
        assert_eq!(settings.cache.trusted_keys, ["main:x"]);
        assert!(toml::from_str::<Settings>("[cache]\nurl = 'gs://team'").is_err());
    }

    #[test]
    fn settings_are_read() {
        let settings: Settings =
            toml::from_str("[dags]\nformat = 'bigflow-1.11'\nids = 'stable'\n[environments.local]\nbase = 'scratch'\npython = '3.11'")
                .unwrap();
        assert_eq!(settings.dags.format, DagFormat::Bigflow1_11);
        assert_eq!(settings.dags.ids, DagIds::Stable);
        assert_eq!(DagSettings::default().ids, DagIds::Versioned);
        let local = &settings.environments[&"local".parse().unwrap()];
        assert_eq!(local.base.as_deref(), Some("scratch"));
        assert_eq!(local.python.as_deref(), Some("3.11"));
    }
}
