//! `deployment_config.py` against BigFlow 1.11.3's `Config`, on generated files.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod bigflow_support;

use std::process::Command;

use bigflow_support::bigflow_python;
use forebay::dags::PythonLiteral;
use forebay::project::{ConfigError, DeploymentConfig, ProjectError, PropertyValue};
use forebay::python::PythonError;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde::{Deserialize, Serialize};

const CASES: usize = 4000;

/// One file, and what it is asked.
#[derive(Debug, Clone, Serialize)]
struct Case {
    source: String,
    environment: Option<String>,
    variables: Vec<(String, String)>,
}

/// What either side says.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Properties(Vec<(String, PropertyValue)>),
    Error(String),
}

const BIGFLOW_SIDE: &str = r#"
import json, os, sys

def encode(value):
    if value is None: return {"type": "none"}
    for name, kind in (("bool", bool), ("int", int), ("float", float), ("str", str)):
        if isinstance(value, kind): return {"type": name, "value": value}
    if isinstance(value, (list, tuple)): return {"type": "list", "value": [encode(item) for item in value]}
    return {"type": "dict", "value": [[key, encode(item)] for key, item in value.items()]}

KINDS = ["no such config name", "No explicit env name", "default env is already set", "from OS environment"]

def outcome(case):
    os.environ.clear()
    for name, value in case["variables"]:
        os.environ[name] = value
    try:
        scope = {"__name__": "deployment_config"}
        exec(case["source"], scope)
        properties = scope["deployment_config"].resolve(case["environment"])
        return {"properties": [[key, encode(value)] for key, value in properties.items()]}
    except AssertionError:
        return {"error": "assertion"}
    except ValueError as error:
        kind = next(kind for kind in KINDS if kind in str(error))
        if kind == KINDS[3]:
            kind = "unset " + str(error).split("'")[1]
        return {"error": kind}

json.dump([outcome(case) for case in json.load(open(sys.argv[1]))], open(sys.argv[2], "w"))
"#;

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec![
            "{a}", "{b}", "{c}", "{env}", "{nope}", "{", "}", "x", "'", "\\", "\n", "é", "{}",
            "{{a}}",
        ]),
        0..4,
    )
    .prop_map(|pieces| pieces.concat())
}

fn literal(text: &str) -> String {
    PythonLiteral::of_text(text).to_string()
}

/// An expression that gives a value.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => text().prop_map(|text| literal(&text)),
        1 => (text(), text()).prop_map(|(left, right)| format!("{} + {}", literal(&left), literal(&right))),
        1 => text().prop_map(|text| format!("f'<{{HELPER}}>' {}", literal(&text))),
        1 => any::<i32>().prop_map(|number| number.to_string()),
        1 => Just("None".to_owned()),
        1 => Just("True".to_owned()),
        1 => text().prop_map(|text| format!("[1, {}, None]", literal(&text))),
        1 => text().prop_map(|text| format!("{{'k': {}}}", literal(&text))),
        1 => Just("HELPER".to_owned()),
        1 => Just("COMMON['b']".to_owned()),
    ]
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d", "a", "b", "c", "nope"])
}

/// A dictionary as source, seldom with an `env` of its own.
fn properties() -> impl Strategy<Value = String> {
    let items = prop::collection::vec((key(), value()), 0..5);
    let own = prop_oneof![12 => Just(None), 1 => Just(Some("dev")), 1 => Just(Some("prod"))];
    let common = prop_oneof![4 => Just(None), 1 => Just(Some("COMMON"))];
    (items, own, any::<bool>(), common).prop_map(|(mut items, own, as_call, common)| {
        if let Some(name) = own {
            items.push(("env", literal(name)));
        }
        items.reverse();
        // A keyword argument must not be given twice; a key may.
        let repeated =
            (1..items.len()).any(|i| items[..i].iter().any(|(key, _)| *key == items[i].0));
        let write = |separator: &str, quote: &str| {
            items
                .iter()
                .map(|(key, value)| format!("{quote}{key}{quote}{separator}{value}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match common {
            Some(common) if as_call && !repeated => format!("dict({common}, {})", write("=", "")),
            Some(common) => format!("{{**{common}, {}}}", write(": ", "'")),
            None if as_call && !repeated => format!("dict({})", write("=", "")),
            None => format!("{{{}}}", write(": ", "'")),
        }
    })
}

fn environment_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["dev", "prod", "qa"])
}

/// What opens the chain of calls, stands between two of them, and closes it.
fn layout() -> impl Strategy<Value = (&'static str, &'static str, &'static str)> {
    prop::sample::select(vec![
        ("", "", ""),
        ("", " \\\n    ", ""),
        ("(\n    ", "\n    # a comment\n    ", "\n)"),
        ("", "\ndeployment_config", ""),
        ("", "\ndeployment_config = deployment_config", ""),
    ])
}

/// How the classes are imported, and what then stands before their names.
const IMPORTS: [(&str, &str); 3] = [
    (
        "from bigflow.configuration import Config, DeploymentConfig",
        "",
    ),
    ("import bigflow.configuration", "bigflow.configuration."),
    ("from bigflow import configuration as c", "c."),
];

/// What `HELPER` is. The variable is set on neither side.
const HELPERS: [&str; 7] = [
    "'help{c}'",
    "'help{c}'",
    "'help' '{c}'",
    "'help' + '{c}'",
    "str('help{c}')",
    "os.environ.get('FOREBAY_TEST_UNSET', 'help{c}')",
    "os.getenv('FOREBAY_TEST_UNSET', 'help{c}')",
];

fn imports() -> impl Strategy<Value = ((&'static str, &'static str), &'static str)> {
    (
        prop::sample::select(IMPORTS.to_vec()),
        prop::sample::select(HELPERS.to_vec()),
    )
}

fn case() -> impl Strategy<Value = Case> {
    let first = (
        environment_name(),
        properties(),
        prop::option::of(any::<bool>()),
        prop::option::of(prop::sample::select(vec![
            "True", "False", "''", "1", "None",
        ])),
        prop::option::of(prop::sample::select(vec![
            "'bf_'", "'my_'", "'_bf'", "''", "None", "'b'",
        ])),
    );
    let others = prop::collection::vec(
        (
            environment_name(),
            properties(),
            prop_oneof![8 => Just(None), 1 => Just(Some("True")), 1 => Just(Some("False"))],
        ),
        0..3,
    );
    let variables = prop::collection::vec(
        (
            prop::sample::select(vec![
                "bf_a", "bf_b", "bf_c", "bf_env", "bf_new", "my_a", "my_env", "_bfa", "_bfenv",
                "benv", "bf_", "OTHER",
            ]),
            prop_oneof![3 => text().prop_filter("no NUL", |text| !text.contains('\0')), 1 => Just("dev".to_owned()), 1 => Just("prod".to_owned())],
        ),
        0..5,
    );
    let environment = prop::option::of(prop_oneof![4 => environment_name(), 1 => Just("")]);
    (first, others, variables, environment, layout(), imports()).prop_map(|(first, others, variables, environment, layout, imports)| {
        let (name, properties, is_master, is_default, prefix) = first;
        let mut arguments = vec![format!("{}, {properties}", literal(name))];
        let flag = |flag: bool| if flag { "True" } else { "False" };
        arguments.extend(is_master.map(|value| format!("is_master={}", flag(value))));
        arguments.extend(is_default.map(|value| format!("is_default={value}")));
        let class = match prefix {
            Some(prefix) => {
                arguments.push(format!("environment_variables_prefix={prefix}"));
                "DeploymentConfig"
            }
            None => "Config",
        };
        let ((import, prefix), helper) = imports;
        let (open, between, close) = layout;
        let mut source = format!(
            "import os\n{import}\nHELPER = {helper}\nCOMMON = {{'b': 'common {{a}}', 'd': HELPER}}\ndeployment_config = {open}{prefix}{class}({})",
            arguments.join(", ")
        );
        for (name, properties, is_default) in others {
            let is_default = is_default.map_or_else(String::new, |value| format!(", is_default={value}"));
            source.push_str(&format!(
                "{between}.add_configuration(\n    name={}, properties={properties}{is_default})",
                literal(name)
            ));
        }
        source.push_str(close);
        source.push('\n');
        let mut distinct: Vec<(String, String)> = Vec::new();
        for (name, value) in variables {
            if distinct.iter().all(|(known, _)| known != name) {
                distinct.push((name.to_owned(), value));
            }
        }
        Case {
            source,
            environment: environment.map(str::to_owned),
            variables: distinct,
        }
    })
}

/// `None`: this file would be run in Python, which is no guess either.
fn ours(case: &Case, path: &std::path::Path) -> Option<Outcome> {
    std::fs::write(path, &case.source).unwrap();
    let config = match DeploymentConfig::load(path, &|| Err(PythonError::NotFound)) {
        Ok(loaded) => loaded.config,
        Err(ProjectError::Config { source, .. }) => return Some(Outcome::Error(kind(&source))),
        Err(ProjectError::Python(PythonError::NotFound)) => return None,
        Err(error) => panic!("{error}\n{}", case.source),
    };
    Some(
        match config.resolve(case.environment.as_deref(), &case.variables) {
            Ok(resolved) => Outcome::Properties(
                resolved
                    .properties()
                    .map(|(key, property)| (key.to_owned(), property.value.clone()))
                    .collect(),
            ),
            Err(error) => Outcome::Error(kind(&error)),
        },
    )
}

fn kind(error: &ConfigError) -> String {
    match error {
        ConfigError::NoSuchEnvironment { .. } => "no such config name".to_owned(),
        ConfigError::NoDefault { .. } => "No explicit env name".to_owned(),
        ConfigError::SecondDefault { .. } => "default env is already set".to_owned(),
        ConfigError::EnvironmentMismatch { .. } => "assertion".to_owned(),
        ConfigError::Unset { key, .. } => format!("unset {key}"),
        other => panic!("{other}"),
    }
}

#[test]
fn generated_configurations_mean_what_they_mean_to_bigflow() {
    let Some(python) = bigflow_python() else {
        return;
    };
    let mut runner = TestRunner::default();
    let cases: Vec<Case> = (0..CASES)
        .map(|_| case().new_tree(&mut runner).unwrap().current())
        .collect();

    let scratch = tempfile::tempdir().unwrap();
    let [script, request, answer, file] = [
        "side.py",
        "cases.json",
        "outcomes.json",
        "deployment_config.py",
    ]
    .map(|name| scratch.path().join(name));
    std::fs::write(&script, BIGFLOW_SIDE).unwrap();
    std::fs::write(&request, serde_json::to_vec(&cases).unwrap()).unwrap();
    let status = Command::new(python)
        .arg(&script)
        .arg(&request)
        .arg(&answer)
        .status()
        .unwrap();
    assert!(status.success());
    let theirs: Vec<Outcome> = serde_json::from_slice(&std::fs::read(&answer).unwrap()).unwrap();

    let (mut evaluated, mut resolved) = (0, 0);
    for (case, theirs) in cases.iter().zip(&theirs) {
        let Some(ours) = ours(case, &file) else {
            continue;
        };
        assert_eq!(&ours, theirs, "{case:#?}\n{}", case.source);
        evaluated += 1;
        resolved += usize::from(matches!(theirs, Outcome::Properties(_)));
    }
    assert_eq!(theirs.len(), CASES);
    assert!(
        evaluated > CASES / 2,
        "only {evaluated} of {CASES} needed no Python"
    );
    assert!(
        resolved > CASES / 6,
        "only {resolved} of {CASES} had a meaning"
    );
}
