//! Which Python, on which platform, wheels are meant for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and processor, as OCI images name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Platform {
    /// `linux/amd64`.
    #[serde(rename = "linux/amd64")]
    LinuxAmd64,
    /// `linux/arm64`.
    #[serde(rename = "linux/arm64")]
    LinuxArm64,
}

impl Platform {
    /// The OCI name of the operating system.
    pub fn os(self) -> &'static str {
        "linux"
    }

    /// The OCI name of the processor (Go's `GOARCH`).
    pub fn architecture(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "amd64",
            Self::LinuxArm64 => "arm64",
        }
    }

    /// The processor's name in wheel tags and in `sysconfig.get_platform()`.
    pub fn machine(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "x86_64",
            Self::LinuxArm64 => "aarch64",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os(), self.architecture())
    }
}

impl FromStr for Platform {
    type Err = UnknownPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "linux/amd64" => Ok(Self::LinuxAmd64),
            "linux/arm64" | "linux/arm64/v8" => Ok(Self::LinuxArm64),
            _ => Err(UnknownPlatform(text.to_owned())),
        }
    }
}

/// A platform that images cannot be built for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown platform {0:?}: linux/amd64 and linux/arm64 are known")]
pub struct UnknownPlatform(String);

/// The CPython that an image runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TargetPython {
    /// 3.
    pub major: u8,
    /// For example 11.
    pub minor: u8,
    /// What the image runs on.
    pub platform: Platform,
}

impl TargetPython {
    /// Whether the wheels that an interpreter of this version and platform
    /// (`sysconfig.get_platform()`) builds fit here.
    pub fn agrees_with(&self, version: (u8, u8), platform: &str) -> bool {
        (self.major, self.minor) == version
            && platform.strip_prefix("linux-") == Some(self.platform.machine())
    }
}

impl fmt::Display for TargetPython {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Python {}.{} on {}",
            self.major, self.minor, self.platform
        )
    }
}
