//! `forebay config`

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::arguments::ConfigArguments;
use super::context::Context;
use crate::artifacts::{Target, TargetOptions};
use crate::project::{Property, PropertyOrigin, PropertyValue, process_variables};
use crate::ui::{CommandError, Exit, Table};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes nothing. Values that come from environment variables, wholly or in part, are not shown: they are as often secrets as not.\n\nExamples:\n  forebay config -c prod\n  forebay config -c prod --json"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

/// In the place of a value that is not shown.
const MASK: &str = "***";

/// What `--json` prints (`schema/config.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    environment: String,
    /// Sorted; what is not shown is `***`.
    properties: serde_json::Map<String, Value>,
    /// The properties that are not shown, with the variable that is the reason.
    masked: BTreeMap<String, String>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let workspace = context.workspace()?;
    let target = workspace.target(TargetOptions {
        environment: arguments.config.config.clone(),
        deployment_config: arguments.config.deployment_config_path.clone(),
        ..TargetOptions::default()
    })?;
    target.require_configuration()?;
    let document = document(&target, &process_variables());
    context
        .printer
        .result(&document, || text(&document, context.printer.width()))?;
    Ok(Exit::Done)
}

fn document(target: &Target, variables: &[(String, String)]) -> Document {
    let all = target.variables().iter().any(|name| name == "*");
    let read: Vec<_> = variables
        .iter()
        .filter(|(name, value)| !value.is_empty() && (all || target.variables().contains(name)))
        .collect();
    let mut document = Document {
        environment: target.environment.to_string(),
        properties: serde_json::Map::new(),
        masked: BTreeMap::new(),
    };
    for (key, property) in target.properties() {
        let reason = reason(property, &read);
        let value = match &reason {
            None => plain(&property.value),
            Some(_) => Value::from(MASK),
        };
        document.properties.insert(key.to_owned(), value);
        if let Some(variable) = reason {
            document.masked.insert(key.to_owned(), variable);
        }
    }
    document
}

/// The variable whose value is in a property.
fn reason(property: &Property, read: &[&(String, String)]) -> Option<String> {
    match &property.origin {
        PropertyOrigin::Variable(name) => Some(name.clone()),
        PropertyOrigin::Configuration => read
            .iter()
            .find(|(_, value)| holds(&property.value, value))
            .map(|(name, _)| name.clone()),
    }
}

fn holds(value: &PropertyValue, secret: &str) -> bool {
    match value {
        PropertyValue::Str(text) => text.contains(secret),
        PropertyValue::List(items) => items.iter().any(|item| holds(item, secret)),
        PropertyValue::Dict(items) => items
            .iter()
            .any(|(key, item)| key.contains(secret) || holds(item, secret)),
        PropertyValue::Int(number) => number.to_string() == secret,
        PropertyValue::Float(number) => number.to_string() == secret,
        PropertyValue::None | PropertyValue::Bool(_) | PropertyValue::Other(_) => false,
    }
}

/// A value as JSON has it; what JSON has no form for by the name of its Python type.
fn plain(value: &PropertyValue) -> Value {
    match value {
        PropertyValue::None => Value::Null,
        PropertyValue::Bool(value) => Value::from(*value),
        PropertyValue::Int(value) => Value::from(*value),
        PropertyValue::Float(value) => Value::from(*value),
        PropertyValue::Str(value) => Value::from(value.as_str()),
        PropertyValue::List(items) => items.iter().map(plain).collect(),
        PropertyValue::Dict(items) => items
            .iter()
            .map(|(key, item)| (key.clone(), plain(item)))
            .collect(),
        PropertyValue::Other(type_name) => Value::from(format!("<{type_name}>")),
    }
}

fn text(document: &Document, width: Option<usize>) -> String {
    let mut table = Table::new(["PROPERTY", "VALUE"]);
    for (key, value) in &document.properties {
        let value = match (document.masked.get(key), value) {
            (Some(variable), _) => format!("{MASK} (from ${variable})"),
            (None, Value::String(text)) => text.clone(),
            (None, other) => other.to_string(),
        };
        table.row([key.clone(), value]);
    }
    format!(
        "environment {}\n{}",
        document.environment,
        table.render(width)
    )
}
