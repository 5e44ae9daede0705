//! As much of JSON Schema as the schemas in `schema/` use, patterns and
//! formats excepted.
#![allow(dead_code)]

use std::path::Path;

use serde_json::Value;

/// What is wrong with `value` by the schema in `schema/<name>`.
pub(crate) fn violations(name: &str, value: &Value) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("schema")
        .join(name);
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut found = Vec::new();
    check(&schema, &schema, value, "$", &mut found);
    found
}

/// A command's document is as its schema says.
pub(crate) fn assert_follows<S: AsRef<str>>(arguments: &[S], document: &Value) {
    let schema = match arguments[0].as_ref() {
        "gc" => "gc-environment",
        "abort" => "resume",
        "deploy-dags" | "deploy-image" => "deploy",
        "build-dags" | "build-image" => "build",
        other => other,
    };
    let found = violations(&format!("{schema}.schema.json"), document);
    assert!(found.is_empty(), "{schema}: {found:#?}");
}

fn check(root: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        let valid = match keyword.as_str() {
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check(root, root.pointer(pointer).unwrap(), value, place, found);
                true
            }
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "type" => match rule {
                Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            // What is said of one type does not bind the others.
            "minimum" => !value.is_number() || value.as_f64() >= rule.as_f64(),
            "maximum" => !value.is_number() || value.as_f64() <= rule.as_f64(),
            "minItems" => {
                let items = value.as_array().map(Vec::len);
                items.is_none_or(|items| items as u64 >= rule.as_u64().unwrap())
            }
            "required" => {
                let mut names = rule.as_array().unwrap().iter();
                !value.is_object() || names.all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{place}[{index}]"), found);
                }
                true
            }
            "properties" | "additionalProperties" => {
                let known = schema.get("properties");
                for (name, member) in value.as_object().into_iter().flatten() {
                    let place = format!("{place}.{name}");
                    match (known.and_then(|known| known.get(name)), keyword.as_str()) {
                        (Some(rule), "properties") => check(root, rule, member, &place, found),
                        (None, "additionalProperties") if rule == &Value::Bool(false) => {
                            found.push(format!("{place} is unknown"));
                        }
                        (None, "additionalProperties") => check(root, rule, member, &place, found),
                        _ => {}
                    }
                }
                true
            }
            "$schema" | "$id" | "$defs" | "title" | "description" | "pattern" | "format" => true,
            other => panic!("unknown keyword {other}"),
        };
        if !valid {
            found.push(format!("{place} violates {keyword}: {value}"));
        }
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}
