//! The Python values that configuration files hold.

use serde::{Deserialize, Serialize};

/// A Python value, in the types that a configuration may hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
pub enum PropertyValue {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An `int` that fits 64 bits.
    Int(i64),
    /// A finite `float`.
    Float(f64),
    /// A `str`.
    Str(String),
    /// A `list` or a `tuple`.
    List(Vec<PropertyValue>),
    /// A `dict` whose keys are texts, in its order.
    Dict(Vec<(String, PropertyValue)>),
    /// Anything else, by the name of its Python type.
    Other(String),
}

impl PropertyValue {
    /// Python's name of the value's type, for messages.
    pub fn type_name(&self) -> &str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Dict(_) => "dict",
            Self::Other(name) => name,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// What Python's `bool(value)` gives. `None` if that cannot be known.
    pub(crate) fn truth(&self) -> Option<bool> {
        match self {
            Self::None => Some(false),
            Self::Bool(value) => Some(*value),
            Self::Int(value) => Some(*value != 0),
            Self::Float(value) => Some(*value != 0.0),
            Self::Str(text) => Some(!text.is_empty()),
            Self::List(items) => Some(!items.is_empty()),
            Self::Dict(items) => Some(!items.is_empty()),
            Self::Other(_) => None,
        }
    }

    /// The value as JSON; what JSON has no word for becomes its type's name.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::None => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Str(text) | Self::Other(text) => text.as_str().into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Dict(items) => serde_json::Value::Object(
                items
                    .iter()
                    .map(|(key, value)| (key.clone(), value.to_json()))
                    .collect(),
            ),
        }
    }
}

/// Sets `key` as Python's `dict` does: a key that is there keeps its place.
pub(crate) fn set_item<V>(items: &mut Vec<(String, V)>, key: String, value: V) {
    match items.iter_mut().find(|(existing, _)| *existing == key) {
        Some((_, old)) => *old = value,
        None => items.push((key, value)),
    }
}

/// Looks `key` up.
pub(crate) fn get_item<'a, V>(items: &'a [(String, V)], key: &str) -> Option<&'a V> {
    items
        .iter()
        .find(|(existing, _)| existing == key)
        .map(|(_, value)| value)
}
