//! What a registry wants to see before it answers (RFC 9110, "WWW-Authenticate").

use std::collections::BTreeMap;

use http::header::{HeaderMap, WWW_AUTHENTICATE};

/// How a registry wants to be authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from a token server (distribution specification, token authentication).
    Bearer {
        /// The token server's address.
        realm: String,
        /// The registry's name for itself, which the token server wants to hear.
        service: Option<String>,
    },
}

impl Challenge {
    /// The strongest challenge of an answer that this program can meet.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let challenges: Vec<_> = headers
            .get_all(WWW_AUTHENTICATE)
            .into_iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse)
            .collect();
        challenges
            .iter()
            .find(|challenge| matches!(challenge, Self::Bearer { .. }))
            .or_else(|| challenges.first())
            .cloned()
    }
}

/// Reads one header, which may hold several challenges; unknown schemes are passed over.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    for part in split_outside_quotes(header) {
        let part = part.trim();
        // `Scheme name=value` begins a challenge, `name=value` goes on with it.
        let (start, parameter) = match part.split_once(' ') {
            Some((scheme, rest)) if !scheme.contains('=') => (Some(scheme), rest.trim()),
            None if !part.contains('=') => (Some(part), ""),
            _ => (None, part),
        };
        if let Some(scheme) = start {
            found.push((scheme.to_ascii_lowercase(), BTreeMap::new()));
        }
        if let (Some((_, parameters)), Some((name, value))) =
            (found.last_mut(), parameter.split_once('='))
        {
            parameters.insert(name.trim().to_ascii_lowercase(), unquote(value.trim()));
        }
    }
    found
        .into_iter()
        .filter_map(|(scheme, mut parameters)| match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer {
                realm: parameters.remove("realm")?,
                service: parameters.remove("service"),
            }),
            _ => None,
        })
        .collect()
}

fn split_outside_quotes(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (position, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.extend(text.get(start..position));
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}

fn unquote(value: &str) -> String {
    let Some(inner) = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(headers: &[&str]) -> Option<Challenge> {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(WWW_AUTHENTICATE, header.parse().unwrap());
        }
        Challenge::from_headers(&map)
    }

    #[test]
    fn challenges_of_real_registries_are_understood() {
        assert_eq!(
            challenge(&[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/python:pull,push""#
            ]),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".to_owned(),
                service: Some("registry.docker.io".to_owned()),
            })
        );
        assert_eq!(
            challenge(&[r#"Basic realm="Registry, \"private\"""#]),
            Some(Challenge::Basic)
        );
        assert_eq!(challenge(&["basic"]), Some(Challenge::Basic));
        assert_eq!(
            challenge(&["Negotiate", r#"Basic realm="x", Bearer realm="https://t/""#]),
            Some(Challenge::Bearer {
                realm: "https://t/".to_owned(),
                service: None,
            })
        );
        assert_eq!(challenge(&["Negotiate"]), None);
        assert_eq!(challenge(&["Bearer"]), None);
        assert_eq!(challenge(&[]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_header_breaks_the_parser(header in ".*") {
            parse(&header);
        }
    }
}
