//! Sections of pyproject.toml that a command writes: at its end, and nothing else is touched.

use std::path::Path;

use crate::ui::{CommandError, Exit};

/// The file.
pub(super) const NAME: &str = "pyproject.toml";

/// Appends `section`, if the file is still TOML with it; makes the file if it is not there.
pub(super) fn append(directory: &Path, section: &str) -> Result<(), CommandError> {
    let path = directory.join(NAME);
    let before = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(cannot("read", &path, error.to_string())),
    };
    let gap = match (before.is_empty(), before.ends_with('\n')) {
        (true, _) => "",
        (false, true) => "\n",
        (false, false) => "\n\n",
    };
    let addition = format!("{gap}{section}");
    if let Err(error) = format!("{before}{addition}").parse::<toml::Table>() {
        return Err(cannot("write", &path, error.message().to_owned()));
    }
    let mut options = std::fs::OpenOptions::new();
    let appended = options
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, addition.as_bytes()));
    appended.map_err(|error| cannot("write", &path, error.to_string()))
}

fn cannot(action: &str, path: &Path, problem: String) -> CommandError {
    CommandError::new(Exit::Failed, format!("cannot {action} {}", path.display()))
        .why(problem)
        .next("put the section there yourself")
}
