//! Placeholders that nothing has replaced. BigFlow leaves `{name}` as it stands, builds
//! everything, and lets docker refuse the image's name; here it is refused at once.

use crate::project::{Property, PropertyValue};

/// A `{name}` that is left in a property's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    /// The property that it stands in.
    pub property: &'static str,
    /// Its name, without braces.
    pub name: String,
    /// Why it was not replaced.
    pub reason: NotReplaced,
    /// The names that would be replaced.
    pub known: Vec<String>,
}

/// Why a placeholder was not replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReplaced {
    /// No property has its name.
    Unknown,
    /// Only texts replace placeholders, and the property is of this Python type.
    NotText(String),
    /// Placeholders are replaced once, in the order of the properties.
    Order,
}

impl std::fmt::Display for Placeholder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { property, name, .. } = self;
        write!(formatter, "{property} has the placeholder {{{name}}}, ")?;
        match &self.reason {
            NotReplaced::Unknown => write!(formatter, "and no property is called {name}"),
            NotReplaced::NotText(found) => write!(
                formatter,
                "but the property {name} is of type {found}, and only texts are put in"
            ),
            NotReplaced::Order => write!(
                formatter,
                "which came in with another one: each is replaced once, in the order of the properties"
            ),
        }
    }
}

/// The first placeholder that is left in `text`.
pub(super) fn left_in(
    property: &'static str,
    text: &str,
    properties: &[(&str, &Property)],
) -> Option<Placeholder> {
    let name = first_name(text)?;
    let named = properties.iter().find(|(key, _)| *key == name);
    let reason = match named.map(|(_, property)| &property.value) {
        None | Some(PropertyValue::None) => NotReplaced::Unknown,
        Some(PropertyValue::Str(_)) => NotReplaced::Order,
        Some(other) => NotReplaced::NotText(other.type_name().to_owned()),
    };
    let known = properties
        .iter()
        .filter(|(key, value)| *key != property && value.value.as_str().is_some())
        .map(|(key, _)| (*key).to_owned());
    Some(Placeholder {
        property,
        name: name.to_owned(),
        reason,
        known: known.collect(),
    })
}

fn first_name(text: &str) -> Option<&str> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    text.split('{')
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('}')?.0))
        .find(|name| is_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholders_name_is_found() {
        assert_eq!(first_name("eu.gcr.io/{project}/a/{b}"), Some("project"));
        assert_eq!(first_name("{{b}}"), Some("b"));
        for text in ["eu.gcr.io/a", "{", "{}", "{a b}", "a}b"] {
            assert_eq!(first_name(text), None, "{text}");
        }
    }
}
