//! Scripts that `entry_points.txt` names (PyPA specification "Entry points").

use super::archive::check_path;

/// One console or gui script of `entry_points.txt`.
pub(super) struct EntryPoint {
    pub(super) name: String,
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

pub(super) fn read_entry_points(text: &str) -> Result<Vec<EntryPoint>, String> {
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
pub(super) fn entry_point_script(interpreter: &str, point: &EntryPoint) -> Vec<u8> {
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
