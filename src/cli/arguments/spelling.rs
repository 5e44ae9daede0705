//! BigFlow's spelling of flags.

use std::ffi::OsString;

/// Flags of two and three letters behind one dash, which clap does not know.
const LONG_NAMES: [(&str, &str); 6] = [
    ("-ve", "--vault-endpoint"),
    ("-vev", "--vault-endpoint-verify"),
    ("-vs", "--vault-secret"),
    ("-dc", "--deployment-config-path"),
    ("-dd", "--dags-dir"),
    ("-cdf", "--clear-dags-folder"),
];

/// Spells BigFlow's short flags out, alone or as `-dc=PATH`.
pub(in crate::cli) fn spell_out(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let spell_out = |argument: OsString| {
        let text = argument.to_str()?;
        let (flag, value) = match text.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (text, None),
        };
        let (_, long) = LONG_NAMES.iter().find(|(short, _)| *short == flag)?;
        Some(match value {
            Some(value) => format!("{long}={value}").into(),
            None => OsString::from(long),
        })
    };
    arguments
        .into_iter()
        .map(|argument| spell_out(argument.clone()).unwrap_or(argument))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bigflows_short_flags_are_spelled_out() {
        let given = [
            "forebay",
            "deploy",
            "-dc",
            "x.py",
            "-ve=https://v",
            "-c",
            "dev",
            "-v",
        ];
        let spelled = spell_out(given.map(OsString::from));
        let expected = [
            "forebay",
            "deploy",
            "--deployment-config-path",
            "x.py",
            "--vault-endpoint=https://v",
            "-c",
            "dev",
            "-v",
        ];
        assert_eq!(spelled, expected.map(OsString::from));
    }
}
