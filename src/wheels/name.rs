//! The names of wheels: what a file name promises before the file is opened.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::WheelError;

/// A distribution's name in its normal form: lower case, runs of `-`, `_` and
/// `.` as one `-` (PyPA specification "Names and normalization").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DistributionName(String);

impl DistributionName {
    /// Normalises `name`.
    pub fn new(name: &str) -> Self {
        let mut normal = String::with_capacity(name.len());
        for character in name.chars() {
            if matches!(character, '-' | '_' | '.') {
                if !normal.ends_with('-') {
                    normal.push('-');
                }
            } else {
                normal.extend(character.to_lowercase());
            }
        }
        Self(normal)
    }

    /// The normal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DistributionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// `NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl` (PyPA specification "Binary
/// distribution format", "File name convention").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WheelFileName(String);

impl WheelFileName {
    /// The file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> Vec<&str> {
        self.0.trim_end_matches(".whl").split('-').collect()
    }

    /// The distribution's name, normalised.
    pub fn distribution(&self) -> DistributionName {
        DistributionName::new(self.parts().first().copied().unwrap_or_default())
    }

    /// The version, as written.
    pub fn version(&self) -> &str {
        self.0.split('-').nth(1).unwrap_or_default()
    }

    /// The last tag: `any`, or platforms separated by dots.
    pub fn platform(&self) -> &str {
        self.parts().last().copied().unwrap_or_default()
    }

    /// Whether the wheel was built on some machine for itself (`linux_x86_64`),
    /// with no promise about the C library of another.
    pub fn is_machine_bound(&self) -> bool {
        self.platform().starts_with("linux_")
    }

    /// Whether the wheel can run where musl is the C library.
    pub fn fits_musl(&self) -> bool {
        let platform = self.platform();
        platform == "any" || platform.contains("musllinux")
    }

    /// Whether the wheel fits every Python 3 on every platform: `py3-none-any`
    /// (or `py2.py3-none-any`).
    pub fn is_universal(&self) -> bool {
        match self.parts().as_slice() {
            [.., python, "none", "any"] => python.split('.').any(|tag| tag == "py3"),
            _ => false,
        }
    }
}

impl FromStr for WheelFileName {
    type Err = WheelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.strip_suffix(".whl").map(|stem| stem.split('-'));
        let is_word = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._+!".contains(&byte))
        };
        let valid = parts.is_some_and(|parts| {
            let parts: Vec<&str> = parts.collect();
            matches!(parts.len(), 5 | 6) && parts.iter().all(|part| is_word(part))
        });
        if valid && !text.starts_with('.') {
            Ok(Self(text.to_owned()))
        } else {
            Err(WheelError::FileName {
                name: text.to_owned(),
            })
        }
    }
}

impl fmt::Display for WheelFileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for WheelFileName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for WheelFileName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_gives_the_normal_name_and_the_version() {
        let name: WheelFileName = "google_cloud_core-2.4.1-py2.py3-none-any.whl"
            .parse()
            .unwrap();
        assert_eq!(name.distribution().as_str(), "google-cloud-core");
        assert_eq!(name.version(), "2.4.1");
        assert!(name.is_universal());

        let name: WheelFileName = "Foo.Bar-1-2-cp311-cp311-manylinux_2_17_x86_64.whl"
            .parse()
            .unwrap();
        assert_eq!(name.distribution().as_str(), "foo-bar");
        assert!(!name.is_universal());
    }

    #[test]
    fn what_is_no_wheel_name_is_refused() {
        for text in [
            "",
            "a.whl",
            "a-1-py3-none-any.zip",
            "a-1-py3-none.whl",
            "../a-1-py3-none-any.whl",
            "a-1-py3-none-any/../x.whl",
            "a--py3-none-any.whl",
            ".a-1-py3-none-any.whl",
        ] {
            assert!(text.parse::<WheelFileName>().is_err(), "{text}");
        }
    }
}
