//! What installing a wheel puts where, without putting anything anywhere.
//!
//! Follows the PyPA specifications "Binary distribution format" (`.data`
//! directories, `#!python`, RECORD), "Recording installed projects" (INSTALLER,
//! RECORD) and "Entry points", and does as pip does where they leave a choice.

use std::collections::{BTreeMap, BTreeSet};

use super::archive::{Archive, ArchiveError, Entry, ReadAt, check_path, refused};
use super::entry_points::{EntryPoint, entry_point_script, read_entry_points};
use super::name::{DistributionName, WheelFileName};
use super::record::{Recorded, add_unhashed, read_record, write_record};
use super::scheme::InstallScheme;
use crate::oci::Sha256Digest;

/// Bytes that a file of `.dist-info` or a `#!python` script may have.
const MAX_METADATA: u64 = 32 << 20;

/// Where a file's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The archive's entry with this index.
    Entry(usize),
    /// Bytes that installing makes.
    Generated(Vec<u8>),
}

/// One file that installing leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledFile {
    /// Relative to the root that the scheme is seen from.
    pub path: String,
    /// Its bytes.
    pub content: Content,
    /// Whether anybody may execute it.
    pub executable: bool,
    /// The SHA-256 that the bytes must have; whoever inflates an entry checks it.
    /// The wheel's own signatures (`RECORD.jws`, `RECORD.p7s`) have none.
    pub sha256: Option<Sha256Digest>,
}

/// All files of one wheel, sorted by path.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The distribution's name, normalised.
    pub distribution: DistributionName,
    /// What is installed.
    pub files: Vec<InstalledFile>,
    /// The path of RECORD, which is one of the files.
    record: String,
    /// What RECORD's paths are relative to.
    site: String,
}

fn header_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn join(directory: &str, path: &str) -> String {
    if directory.is_empty() {
        path.to_owned()
    } else {
        format!("{directory}/{path}")
    }
}

/// The directories above `path`, the topmost first.
pub fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/')
        .filter_map(|(slash, _)| path.get(..slash))
}

/// The `.dist-info` directory and what its files say.
struct Metadata<'a> {
    dist_info: &'a str,
    data_prefix: String,
    root_is_purelib: bool,
    entry_points: Vec<EntryPoint>,
    record: BTreeMap<String, Recorded>,
}

fn read_text<S: ReadAt>(archive: &Archive<S>, path: &str) -> Result<Option<String>, ArchiveError> {
    let Some(entry) = archive.entry(path) else {
        return Ok(None);
    };
    match String::from_utf8(archive.read(entry, MAX_METADATA)?) {
        Ok(text) => Ok(Some(text)),
        Err(_) => refused(format!("{path} is not UTF-8")),
    }
}

fn read_metadata<'a, S: ReadAt>(
    archive: &'a Archive<S>,
    file_name: &WheelFileName,
) -> Result<Metadata<'a>, ArchiveError> {
    let directories: BTreeSet<&str> = archive
        .entries()
        .iter()
        .filter_map(|entry| entry.path.split_once('/'))
        .map(|(first, _)| first)
        .filter(|first| first.ends_with(".dist-info"))
        .collect();
    let Some(dist_info) = directories.first().filter(|_| directories.len() == 1) else {
        return refused(format!(
            "it has {} .dist-info directories instead of one",
            directories.len()
        ));
    };
    let stem = dist_info.trim_end_matches(".dist-info");
    let named = stem.split('-').next().unwrap_or_default();
    if DistributionName::new(named) != file_name.distribution() {
        return refused(format!("its .dist-info directory belongs to {named:?}"));
    }
    let required = |name: &str| -> Result<String, ArchiveError> {
        match read_text(archive, &format!("{dist_info}/{name}"))? {
            Some(text) => Ok(text),
            None => refused(format!("it has no {name}")),
        }
    };
    let wheel = required("WHEEL")?;
    let version = header_value(&wheel, "Wheel-Version").unwrap_or_default();
    if version.split('.').next() != Some("1") {
        return refused(format!(
            "its Wheel-Version is {version:?}; only 1.x is known"
        ));
    }
    required("METADATA")?;
    let entry_points = match read_text(archive, &format!("{dist_info}/entry_points.txt"))? {
        Some(text) => read_entry_points(&text).map_err(ArchiveError::Refused)?,
        None => Vec::new(),
    };
    Ok(Metadata {
        dist_info,
        data_prefix: format!("{stem}.data/"),
        root_is_purelib: header_value(&wheel, "Root-Is-Purelib")
            .is_some_and(|value| value.eq_ignore_ascii_case("true")),
        entry_points,
        record: read_record(&required("RECORD")?)?,
    })
}

/// Where one entry goes; `None` if installing leaves it out.
struct Destination {
    path: String,
    is_script: bool,
}

fn destination(
    entry: &Entry,
    metadata: &Metadata<'_>,
    scheme: &InstallScheme,
    distribution: &DistributionName,
) -> Result<Option<Destination>, ArchiveError> {
    let site = if metadata.root_is_purelib {
        &scheme.purelib
    } else {
        &scheme.platlib
    };
    let Some(data_path) = entry.path.strip_prefix(&metadata.data_prefix) else {
        return Ok(Some(Destination {
            path: join(site, &entry.path),
            is_script: false,
        }));
    };
    let Some((kind, rest)) = data_path.split_once('/') else {
        return refused(format!("{:?} belongs to no installation path", entry.path));
    };
    let directory = match kind {
        "purelib" => scheme.purelib.clone(),
        "platlib" => scheme.platlib.clone(),
        "data" => scheme.data.clone(),
        "headers" => join(&scheme.headers, distribution.as_str()),
        "scripts" => {
            // A wrapper that an older tool put beside its entry point: the entry point wins.
            let is_wrapper = metadata.entry_points.iter().any(|point| point.name == rest);
            if is_wrapper {
                return Ok(None);
            }
            scheme.scripts.clone()
        }
        _ => {
            return refused(format!(
                "{:?} belongs to the unknown installation path {kind:?}",
                entry.path
            ));
        }
    };
    Ok(Some(Destination {
        path: join(&directory, rest),
        is_script: kind == "scripts",
    }))
}

/// A script whose first line is `#!python…`, with the interpreter put there.
fn rewritten_script<S: ReadAt>(
    archive: &Archive<S>,
    entry: &Entry,
    interpreter: &str,
) -> Result<Option<Vec<u8>>, ArchiveError> {
    use std::io::Read as _;
    let mut start = [0; 8];
    let is_long_enough = archive.reader(entry).read_exact(&mut start).is_ok();
    if !is_long_enough || &start != b"#!python" {
        return Ok(None);
    }
    let script = archive.read(entry, MAX_METADATA)?;
    let line_end = script
        .iter()
        .position(|&byte| byte == b'\n')
        .unwrap_or(script.len());
    let mut rewritten = format!("#!{interpreter}").into_bytes();
    rewritten.extend_from_slice(script.get(line_end..).unwrap_or_default());
    Ok(Some(rewritten))
}

impl Installation {
    /// Reads the wheel's metadata and decides where each of its files goes.
    ///
    /// No entry outside of `.dist-info` and the scripts is inflated: that its
    /// bytes have the hash that RECORD promises ([`InstalledFile::sha256`]) is
    /// checked by whoever inflates it.
    ///
    /// # Errors
    /// [`ArchiveError::Refused`] if the archive is not a sound wheel of this name.
    pub fn plan<S: ReadAt>(
        archive: &Archive<S>,
        file_name: &WheelFileName,
        scheme: &InstallScheme,
    ) -> Result<Self, ArchiveError> {
        let distribution = file_name.distribution();
        let metadata = read_metadata(archive, file_name)?;
        let site = if metadata.root_is_purelib {
            &scheme.purelib
        } else {
            &scheme.platlib
        };
        let dist_info = join(site, metadata.dist_info);
        let record_path = format!("{dist_info}/RECORD");
        let installer_path = format!("{dist_info}/INSTALLER");
        let mut files: BTreeMap<String, (InstalledFile, u64)> = BTreeMap::new();
        let mut add = |file: InstalledFile, size: u64| {
            let path = file.path.clone();
            match files.insert(path.clone(), (file, size)) {
                None => Ok(()),
                Some(_) => refused(format!("two of its files are installed as {path}")),
            }
        };
        let generated = |path: String, bytes: Vec<u8>, executable: bool| {
            let size = bytes.len() as u64;
            let file = InstalledFile {
                path,
                sha256: Some(Sha256Digest::of(&bytes)),
                content: Content::Generated(bytes),
                executable,
            };
            (file, size)
        };

        for (index, entry) in archive.entries().iter().enumerate() {
            let Some(to) = destination(entry, &metadata, scheme, &distribution)? else {
                continue;
            };
            check_path(&to.path).map_err(ArchiveError::Refused)?;
            if to.path == record_path || to.path == installer_path {
                continue;
            }
            let is_signature =
                to.path == format!("{record_path}.jws") || to.path == format!("{record_path}.p7s");
            let sha256 = match metadata.record.get(&entry.path) {
                Some(recorded) if recorded.hash.is_some() || is_signature => recorded.hash,
                None if is_signature => None,
                _ => return refused(format!("its RECORD has no hash for {:?}", entry.path)),
            };
            let script = if to.is_script {
                rewritten_script(archive, entry, &scheme.interpreter)?
            } else {
                None
            };
            match script {
                Some(script) => {
                    // The bytes leave the archive here, so their hash is checked here.
                    let original = archive.read(entry, MAX_METADATA)?;
                    if sha256 != Some(Sha256Digest::of(&original)) {
                        return refused(format!("{:?} is not what RECORD says", entry.path));
                    }
                    let (file, size) = generated(to.path, script, true);
                    add(file, size)?;
                }
                None => add(
                    InstalledFile {
                        path: to.path,
                        content: Content::Entry(index),
                        executable: entry.executable || to.is_script,
                        sha256,
                    },
                    entry.size,
                )?,
            }
        }
        for point in &metadata.entry_points {
            let (file, size) = generated(
                join(&scheme.scripts, &point.name),
                entry_point_script(&scheme.interpreter, point),
                true,
            );
            add(file, size)?;
        }
        let (file, size) = generated(installer_path, b"forebay\n".to_vec(), false);
        add(file, size)?;

        let record = write_record(
            files
                .values()
                .map(|(file, size)| (file.path.as_str(), file.sha256, *size)),
            site,
            &record_path,
        );
        let (file, _) = generated(record_path.clone(), record, false);
        let mut files: Vec<InstalledFile> = files.into_values().map(|(file, _)| file).collect();
        files.push(file);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let blocked = files
            .iter()
            .flat_map(|file| parents(&file.path))
            .find(|parent| paths.contains(parent));
        if let Some(path) = blocked {
            return refused(format!("{path} is both a file and a directory"));
        }
        Ok(Self {
            distribution,
            files,
            record: record_path,
            site: site.clone(),
        })
    }

    /// Puts compiled modules into RECORD, without hashes as pip does.
    pub fn record_bytecode<'a>(&mut self, paths: impl Iterator<Item = &'a str>) {
        let record = self.files.iter_mut().find(|file| file.path == self.record);
        if let Some(InstalledFile {
            content: Content::Generated(bytes),
            sha256,
            ..
        }) = record
        {
            *bytes = add_unhashed(bytes, paths, &self.site);
            *sha256 = Some(Sha256Digest::of(bytes));
        }
    }
}
