//! What installing a wheel puts where, without putting anything anywhere.
//!
//! Follows the PyPA specifications "Binary distribution format" (`.data`
//! directories, `#!python`, RECORD), "Recording installed projects" (INSTALLER,
//! RECORD) and "Entry points", and does as pip does where they leave a choice.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::archive::{Archive, ArchiveError, Entry, ReadAt, check_path};
use super::name::{DistributionName, WheelFileName};
use crate::oci::Sha256Digest;

/// Bytes that a file of `.dist-info` or a `#!python` script may have.
const MAX_METADATA: u64 = 32 << 20;

/// Where an interpreter looks for what is installed: Python's installation
/// scheme (`sysconfig.get_paths()`), as paths without the leading slash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallScheme {
    /// Pure Python packages.
    pub purelib: String,
    /// Packages with compiled parts.
    pub platlib: String,
    /// Scripts.
    pub scripts: String,
    /// C headers; the distribution's name is appended.
    pub headers: String,
    /// Data files: `sys.prefix`.
    pub data: String,
    /// What stands after `#!` in scripts.
    pub interpreter: String,
}

impl InstallScheme {
    /// The scheme of a CPython under `prefix` that calls its package directory
    /// `packages` (`site-packages`, or Debian's `dist-packages`).
    pub fn under(
        prefix: &str,
        (major, minor): (u8, u8),
        packages: &str,
        interpreter: &str,
    ) -> Self {
        let site = format!("{prefix}/lib/python{major}.{minor}/{packages}");
        Self {
            purelib: site.clone(),
            platlib: site,
            scripts: format!("{prefix}/bin"),
            headers: format!("{prefix}/include/python{major}.{minor}"),
            data: prefix.to_owned(),
            interpreter: interpreter.to_owned(),
        }
    }

    /// A scheme that is no interpreter's: for a directory of its own.
    pub fn relative() -> Self {
        Self {
            purelib: "site-packages".to_owned(),
            platlib: "site-packages".to_owned(),
            scripts: "bin".to_owned(),
            headers: "include".to_owned(),
            data: "data".to_owned(),
            interpreter: "/usr/bin/env python3".to_owned(),
        }
    }
}

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
}

/// A line of RECORD.
struct Recorded {
    hash: Option<Sha256Digest>,
}

fn refused<T>(problem: impl Into<String>) -> Result<T, ArchiveError> {
    Err(ArchiveError::Refused(problem.into()))
}

/// Splits one CSV record; RECORD is written by Python's `csv` module.
fn csv_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let Some(field) = fields.last_mut() else {
            break;
        };
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    fields
}

fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn record_hash(digest: &Sha256Digest) -> String {
    format!("sha256={}", URL_SAFE_NO_PAD.encode(digest.as_bytes()))
}

fn read_record(text: &str) -> Result<BTreeMap<String, Recorded>, ArchiveError> {
    let mut recorded = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let fields = csv_fields(line);
        let [path, hash, ..] = fields.as_slice() else {
            return refused(format!(
                "its RECORD has a line without a hash column: {line:?}"
            ));
        };
        let hash = match hash.split_once('=') {
            None if hash.is_empty() => None,
            Some(("sha256", encoded)) => {
                let bytes = URL_SAFE_NO_PAD
                    .decode(encoded.trim_end_matches('='))
                    .ok()
                    .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                let Some(bytes) = bytes else {
                    return refused(format!("its RECORD has a damaged hash for {path:?}"));
                };
                Some(Sha256Digest::from_bytes(bytes))
            }
            _ => {
                return refused(format!(
                    "its RECORD has a hash that is not SHA-256 for {path:?}"
                ));
            }
        };
        recorded.insert(path.clone(), Recorded { hash });
    }
    Ok(recorded)
}

/// One console or gui script of `entry_points.txt`.
struct EntryPoint {
    name: String,
    module: String,
    function: String,
}

fn is_dotted_identifier(text: &str) -> bool {
    text.split('.').all(|part| {
        let mut characters = part.chars();
        characters
            .next()
            .is_some_and(|c| c.is_alphabetic() || c == '_')
            && characters.all(|c| c.is_alphanumeric() || c == '_')
    })
}

fn parse_entry_point(name: &str, value: &str) -> Result<EntryPoint, String> {
    let invalid = || format!("the script {name:?} = {value:?} is not valid");
    // Extras in brackets are allowed and mean nothing to a script.
    let object = value.split('[').next().unwrap_or_default().trim();
    let (module, function) = object.split_once(':').ok_or_else(invalid)?;
    let (module, function) = (module.trim(), function.trim());
    if name.contains('/')
        || check_path(name).is_err()
        || !is_dotted_identifier(module)
        || !is_dotted_identifier(function)
    {
        return Err(invalid());
    }
    Ok(EntryPoint {
        name: name.to_owned(),
        module: module.to_owned(),
        function: function.to_owned(),
    })
}

fn read_entry_points(text: &str) -> Result<Vec<EntryPoint>, String> {
    let mut points = Vec::new();
    let mut in_scripts = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            in_scripts = matches!(section.trim(), "console_scripts" | "gui_scripts");
        } else if in_scripts {
            let Some((name, value)) = line.split_once('=') else {
                return Err(format!("entry_points.txt has the line {line:?}"));
            };
            points.push(parse_entry_point(name.trim(), value.trim())?);
        }
    }
    Ok(points)
}

/// The script that runs an entry point, as pip (distlib) writes it.
fn entry_point_script(interpreter: &str, point: &EntryPoint) -> Vec<u8> {
    let import = point.function.split('.').next().unwrap_or_default();
    format!(
        "#!{interpreter}\n# -*- coding: utf-8 -*-\nimport re\nimport sys\nfrom {} import {import}\n\
         if __name__ == '__main__':\n    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])\n    \
         sys.exit({}())\n",
        point.module, point.function
    )
    .into_bytes()
}

/// The script that `setup(entry_points=…)` or a wheel's `entry_points.txt`
/// makes for `name = value`.
///
/// # Errors
/// A text that names no function, or a name that is no file name.
pub fn script_for(interpreter: &str, name: &str, value: &str) -> Result<Vec<u8>, String> {
    parse_entry_point(name, value).map(|point| entry_point_script(interpreter, &point))
}

fn header_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// `path` as seen from the directory `from`, as RECORD names files outside of site-packages.
pub fn relative_path(path: &str, from: &str) -> String {
    let from: Vec<&str> = from.split('/').filter(|part| !part.is_empty()).collect();
    let to: Vec<&str> = path.split('/').collect();
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", from.len() - common);
    up.chain(to.into_iter().skip(common))
        .collect::<Vec<_>>()
        .join("/")
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

/// The text of RECORD for `files` (path, hash, size), in the order given.
/// `record_path` is RECORD's own; all paths are relative to the scheme's root.
pub fn write_record<'a>(
    files: impl Iterator<Item = (&'a str, Option<Sha256Digest>, u64)>,
    site: &str,
    record_path: &str,
) -> Vec<u8> {
    let mut lines: BTreeSet<String> = files
        .map(|(path, hash, size)| {
            let path = csv_field(&relative_path(path, site));
            match hash {
                Some(hash) => format!("{path},{},{size}\n", record_hash(&hash)),
                None => format!("{path},,\n"),
            }
        })
        .collect();
    lines.insert(format!(
        "{},,\n",
        csv_field(&relative_path(record_path, site))
    ));
    lines.into_iter().collect::<String>().into_bytes()
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
        })
    }
}
