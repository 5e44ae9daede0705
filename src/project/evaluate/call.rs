//! Calls: `dict`, `str`, `Config` and its methods, and `bigflow.build.setup` with its
//! legacy forms.

use ruff_python_ast::{Arguments, Expr};

use super::expression::text_of;
use super::{Bound, EvaluateError, Evaluator, Function, Outcome};
use crate::project::config::DeploymentConfig;
use crate::project::value::{PropertyValue, set_item};

impl Evaluator<'_> {
    pub(super) fn call(
        &mut self,
        node: &Expr,
        function: &Bound,
        arguments: &Arguments,
    ) -> Outcome<Bound> {
        let mut positional = Vec::new();
        for argument in &arguments.args {
            positional.push(self.value(argument)?);
        }
        let mut named: Vec<(String, PropertyValue)> = Vec::new();
        for keyword in &arguments.keywords {
            let added = match &keyword.arg {
                Some(name) => vec![(name.as_str().to_owned(), self.value(&keyword.value)?)],
                None => {
                    let mut items = Vec::new();
                    self.merge(&mut items, &keyword.value)?;
                    items
                }
            };
            for (name, value) in added {
                if named.iter().any(|(existing, _)| *existing == name) {
                    return self.needs_python(keyword, "an argument given twice");
                }
                named.push((name, value));
            }
        }
        let arguments = CallArguments { positional, named };
        match function {
            Bound::Function(Function::Dict) => match arguments.positional.as_slice() {
                [] => Ok(Bound::Value(PropertyValue::Dict(arguments.named))),
                [PropertyValue::Dict(items)] => {
                    let mut items = items.clone();
                    for (key, value) in arguments.named {
                        set_item(&mut items, key, value);
                    }
                    Ok(Bound::Value(PropertyValue::Dict(items)))
                }
                _ => self.needs_python(node, "this dict()"),
            },
            Bound::Function(Function::Str) => match (&*arguments.positional, &*arguments.named) {
                ([value], []) => match text_of(value) {
                    Some(text) => Ok(Bound::Value(PropertyValue::Str(text))),
                    None => self.needs_python(node, "this str()"),
                },
                _ => self.needs_python(node, "this str()"),
            },
            Bound::Function(Function::GetVariable) => {
                let Some([Some(PropertyValue::Str(name)), default, ..]) =
                    arguments.bind(&["key", "default"])
                else {
                    return self.needs_python(node, "this call");
                };
                let value = self.variable(node, &name)?;
                Ok(Bound::Value(
                    value.or(default).unwrap_or(PropertyValue::None),
                ))
            }
            Bound::Function(kind @ (Function::Config | Function::DeploymentConfig)) => {
                self.new_config(node, *kind, arguments)
            }
            Bound::AddConfiguration(index) => self.add_configuration(node, *index, arguments),
            Bound::Function(Function::Setup) => {
                if !arguments.positional.is_empty() {
                    return self.needs_python(node, "this call of setup()");
                }
                let mut named = arguments.named;
                named.retain(|(name, _)| name != "project_dir");
                self.result.setup = Some(named);
                Ok(Bound::Value(PropertyValue::None))
            }
            Bound::Function(Function::LegacySetup) => {
                let named = self.legacy_arguments(node, arguments)?;
                let setup = named
                    .into_iter()
                    .filter(|(name, _)| name != "project_dir")
                    .map(|(name, value)| match name.as_str() {
                        "project_name" => ("name".to_owned(), value),
                        _ => (name, value),
                    })
                    .collect();
                self.result.setup = Some(setup);
                Ok(Bound::Value(PropertyValue::None))
            }
            Bound::Function(Function::LegacyConfiguration) => {
                let named = self.legacy_arguments(node, arguments)?;
                Ok(Bound::Value(PropertyValue::Dict(named)))
            }
            _ => self.needs_python(node, "this call"),
        }
    }

    /// `(project_name, **kwargs)` of BigFlow 1.0's functions, as named arguments.
    fn legacy_arguments(
        &mut self,
        node: &Expr,
        arguments: CallArguments,
    ) -> Outcome<Vec<(String, PropertyValue)>> {
        let mut named = arguments.named;
        match arguments.positional.as_slice() {
            [] => {}
            [name] => named.insert(0, ("project_name".to_owned(), name.clone())),
            _ => return self.needs_python(node, "this call"),
        }
        if named
            .iter()
            .filter(|(name, _)| name == "project_name")
            .count()
            == 1
        {
            Ok(named)
        } else {
            self.needs_python(node, "this call")
        }
    }

    fn new_config(
        &mut self,
        node: &Expr,
        kind: Function,
        arguments: CallArguments,
    ) -> Outcome<Bound> {
        let names: &[&str] = match kind {
            Function::Config => &["name", "properties", "is_master", "is_default"],
            _ => &[
                "name",
                "properties",
                "is_master",
                "is_default",
                "environment_variables_prefix",
            ],
        };
        let Some([name, properties, is_master, is_default, prefix]) = arguments.bind(names) else {
            return self.needs_python(node, "this call");
        };
        let (Some(PropertyValue::Str(name)), Some(PropertyValue::Dict(properties))) =
            (name, properties)
        else {
            return self.needs_python(node, "this call");
        };
        let truth = |value: Option<PropertyValue>| value.map_or(Some(true), |value| value.truth());
        let (Some(is_master), Some(is_default)) = (truth(is_master), truth(is_default)) else {
            return self.needs_python(node, "this call");
        };
        let prefix = match prefix {
            None | Some(PropertyValue::None) => None,
            Some(PropertyValue::Str(prefix)) => Some(prefix),
            Some(_) => return self.needs_python(node, "this call"),
        };
        let config =
            DeploymentConfig::new(&name, properties, is_master, is_default, prefix.as_deref())
                .map_err(|source| EvaluateError::Config {
                    line: self.line(node),
                    source,
                })?;
        self.configs.push(config);
        Ok(Bound::Config(self.configs.len() - 1))
    }

    fn add_configuration(
        &mut self,
        node: &Expr,
        index: usize,
        arguments: CallArguments,
    ) -> Outcome<Bound> {
        let line = self.line(node);
        let Some(
            [
                Some(PropertyValue::Str(name)),
                Some(PropertyValue::Dict(properties)),
                is_default,
                _,
                _,
            ],
        ) = arguments.bind(&["name", "properties", "is_default"])
        else {
            return self.needs_python(node, "this call");
        };
        let Some(is_default) = is_default.map_or(Some(false), |value| value.truth()) else {
            return self.needs_python(node, "this call");
        };
        if let Some(config) = self.configs.get_mut(index) {
            config
                .add(&name, properties, is_default)
                .map_err(|source| EvaluateError::Config { line, source })?;
        }
        Ok(Bound::Config(index))
    }
}

struct CallArguments {
    positional: Vec<PropertyValue>,
    named: Vec<(String, PropertyValue)>,
}

impl CallArguments {
    /// Binds to at most five parameters; `None` where Python would raise a `TypeError`.
    fn bind(self, names: &[&str]) -> Option<[Option<PropertyValue>; 5]> {
        let mut bound: [Option<PropertyValue>; 5] = [const { None }; 5];
        if self.positional.len() > names.len() {
            return None;
        }
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let place = names.iter().position(|known| *known == name)?;
            let slot = bound.get_mut(place)?;
            if slot.replace(value).is_some() {
                return None;
            }
        }
        Some(bound)
    }
}
