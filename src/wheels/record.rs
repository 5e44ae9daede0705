//! RECORD: the list of what a distribution installed (PyPA specification
//! "Recording installed projects"), a CSV file as Python's `csv` module writes it.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::archive::{ArchiveError, refused};
use crate::oci::Sha256Digest;

/// A line of RECORD.
pub(super) struct Recorded {
    pub(super) hash: Option<Sha256Digest>,
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

pub(super) fn read_record(text: &str) -> Result<BTreeMap<String, Recorded>, ArchiveError> {
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

/// `record` with further files that have no hash, as pip lists what it compiled.
pub fn add_unhashed<'a>(
    record: &[u8],
    paths: impl Iterator<Item = &'a str>,
    site: &str,
) -> Vec<u8> {
    let record = String::from_utf8_lossy(record);
    let mut lines: BTreeSet<String> = record.lines().map(|line| format!("{line}\n")).collect();
    lines.extend(paths.map(|path| format!("{},,\n", csv_field(&relative_path(path, site)))));
    lines.into_iter().collect::<String>().into_bytes()
}
