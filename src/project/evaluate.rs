//! Evaluates the small Python that configuration files are written in, without
//! starting Python.
//!
//! What this cannot evaluate *exactly* is reported as [`EvaluateError::NeedsPython`],
//! and the caller runs the file instead: nothing is guessed. This is the only module
//! that touches the parser, whose interface is not stable.

use std::collections::HashMap;

use ruff_python_ast::{
    Arguments, BoolOp, CmpOp, ConversionFlag, Expr, ExprFString, FStringPart,
    InterpolatedStringElement, Number, Operator, Stmt, UnaryOp,
};
use ruff_text_size::{Ranged, TextSize};

use super::config::{ConfigError, DeploymentConfig};
use super::value::{PropertyValue, set_item};

/// Why a file was not evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum EvaluateError {
    /// Python could not read it either. Line and column start at 1; the column counts characters.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        line: usize,
        column: usize,
        message: String,
    },
    /// It is Python that only Python can evaluate.
    #[error("line {line}: {what} is evaluated by Python")]
    NeedsPython { line: usize, what: &'static str },
    /// It is evaluated, and has no meaning.
    #[error("line {line}: {source}")]
    Config { line: usize, source: ConfigError },
}

/// What a file did.
#[derive(Debug, Default)]
pub(crate) struct Evaluated {
    /// The value of `deployment_config`, if it is a `Config`.
    pub(crate) deployment_config: Option<DeploymentConfig>,
    /// Whether the name `deployment_config` is bound at all.
    pub(crate) has_deployment_config: bool,
    /// The arguments of the first call of `bigflow.build.setup` (or of its legacy forms).
    pub(crate) setup: Option<Vec<(String, PropertyValue)>>,
    /// Spellings that were accepted although they are wrong.
    pub(crate) warnings: Vec<String>,
}

/// Evaluates `source`, whose `__name__` is `module_name`.
pub(crate) fn evaluate(source: &str, module_name: &str) -> Result<Evaluated, EvaluateError> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let module = ruff_python_parser::parse_module(source).map_err(|error| {
        let (line, column) = position(source, error.location.start());
        EvaluateError::Syntax {
            line,
            column,
            message: format!("invalid syntax: {}", error.error),
        }
    })?;
    let mut evaluator = Evaluator {
        source,
        names: HashMap::from([
            (
                "__name__".to_owned(),
                Bound::Value(PropertyValue::Str(module_name.to_owned())),
            ),
            ("dict".to_owned(), Bound::Function(Function::Dict)),
            ("str".to_owned(), Bound::Function(Function::Str)),
        ]),
        configs: Vec::new(),
        result: Evaluated::default(),
    };
    evaluator.block(module.suite())?;
    let bound = evaluator.names.remove("deployment_config");
    let mut result = evaluator.result;
    result.has_deployment_config = bound.is_some();
    if let Some(Bound::Config(index)) = bound {
        result.deployment_config = evaluator.configs.into_iter().nth(index);
    }
    Ok(result)
}

/// Line and column of a byte offset, both from 1, the column in characters.
fn position(source: &str, offset: TextSize) -> (usize, usize) {
    let before = source.get(..offset.to_usize()).unwrap_or(source);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// What a name stands for.
#[derive(Debug, Clone)]
enum Bound {
    Value(PropertyValue),
    /// A module, by its dotted name.
    Module(&'static str),
    Function(Function),
    /// A `Config`, by its number: Python changes it in place.
    Config(usize),
    /// A method `add_configuration` of that `Config`.
    AddConfiguration(usize),
}

#[derive(Debug, Clone, Copy)]
enum Function {
    Config,
    DeploymentConfig,
    Dict,
    Str,
    Setup,
    LegacySetup,
    LegacyConfiguration,
}

/// What can be imported from the modules that the evaluator knows.
fn member(module: &str, name: &str) -> Option<Bound> {
    let bound = match (module, name) {
        ("bigflow" | "bigflow.configuration", "Config") => Bound::Function(Function::Config),
        ("bigflow" | "bigflow.configuration", "DeploymentConfig") => {
            Bound::Function(Function::DeploymentConfig)
        }
        ("bigflow", "configuration") => Bound::Module("bigflow.configuration"),
        ("bigflow", "build") => Bound::Module("bigflow.build"),
        ("bigflow.build", "setup") => Bound::Function(Function::Setup),
        ("bigflow.build", "default_project_setup" | "project_setup") => {
            Bound::Function(Function::LegacySetup)
        }
        ("bigflow.build", "auto_configuration") => Bound::Function(Function::LegacyConfiguration),
        _ => return None,
    };
    Some(bound)
}

struct Evaluator<'source> {
    source: &'source str,
    names: HashMap<String, Bound>,
    configs: Vec<DeploymentConfig>,
    result: Evaluated,
}

type Outcome<T> = Result<T, EvaluateError>;

impl Evaluator<'_> {
    fn line(&self, node: &impl Ranged) -> usize {
        position(self.source, node.range().start()).0
    }

    fn needs_python<T>(&self, node: &impl Ranged, what: &'static str) -> Outcome<T> {
        Err(EvaluateError::NeedsPython {
            line: self.line(node),
            what,
        })
    }

    fn warn(&mut self, node: &impl Ranged, message: &str) {
        let line = self.line(node);
        self.result.warnings.push(format!("line {line}: {message}"));
    }

    fn block(&mut self, statements: &[Stmt]) -> Outcome<()> {
        for statement in statements {
            // BigFlow reads the arguments of the first `setup()` and ends the program there.
            if self.result.setup.is_some() {
                break;
            }
            self.statement(statement)?;
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Stmt) -> Outcome<()> {
        match statement {
            Stmt::Pass(_) => Ok(()),
            Stmt::Expr(expression) => self.expression(&expression.value).map(drop),
            Stmt::Import(import) => {
                for alias in &import.names {
                    let module = self.module(alias, alias.name.as_str())?;
                    match (&alias.asname, module) {
                        (Some(name), module) => self.bind(name.as_str(), Bound::Module(module)),
                        (None, "bigflow" | "bigflow.configuration" | "bigflow.build") => {
                            let root = alias.name.as_str().split('.').next().unwrap_or_default();
                            self.bind(root, Bound::Module("bigflow"));
                        }
                        (None, _) => {}
                    }
                }
                Ok(())
            }
            Stmt::ImportFrom(import) => {
                let Some(module) = import.module.as_ref().filter(|_| import.level == 0) else {
                    return self.needs_python(import, "a relative import");
                };
                if module.as_str() == "__future__" {
                    return Ok(());
                }
                let module = self.module(import, module.as_str())?;
                for alias in &import.names {
                    match member(module, alias.name.as_str()) {
                        Some(bound) => {
                            let name = alias.asname.as_ref().unwrap_or(&alias.name);
                            self.bind(name.as_str(), bound);
                        }
                        // A name that only annotations use.
                        None if module == "typing" && alias.name.as_str() != "*" => {}
                        None => return self.needs_python(alias, "this import"),
                    }
                }
                Ok(())
            }
            Stmt::Assign(assign) => {
                let value = self.expression(&assign.value)?;
                for target in &assign.targets {
                    let Expr::Name(name) = target else {
                        return self.needs_python(target, "this assignment");
                    };
                    self.bind(name.id.as_str(), value.clone());
                }
                Ok(())
            }
            Stmt::AnnAssign(assign) => match (&*assign.target, &assign.value) {
                // The annotation is evaluated by Python too; a plain name cannot matter.
                (Expr::Name(name), Some(value)) if matches!(&*assign.annotation, Expr::Name(annotation) if matches!(annotation.id.as_str(), "str" | "int" | "bool" | "float" | "dict" | "list")) =>
                {
                    let value = self.expression(value)?;
                    self.bind(name.id.as_str(), value);
                    Ok(())
                }
                _ => self.needs_python(assign, "this annotated assignment"),
            },
            Stmt::If(condition) if condition.elif_else_clauses.is_empty() => {
                let test = self.value(&condition.test)?;
                match test.truth() {
                    Some(true) => self.block(&condition.body),
                    Some(false) => Ok(()),
                    None => self.needs_python(&*condition.test, "this condition"),
                }
            }
            other => self.needs_python(other, "this statement"),
        }
    }

    /// The module that an import means, if importing it can have no other effect.
    fn module(&mut self, node: &impl Ranged, name: &str) -> Outcome<&'static str> {
        if name == "biggerquery" || name.starts_with("biggerquery.") {
            self.warn(
                node,
                "`biggerquery` was never released under this name: write `from bigflow import Config`",
            );
        }
        match name {
            "bigflow" | "biggerquery" => Ok("bigflow"),
            "bigflow.configuration" | "biggerquery.configuration" => Ok("bigflow.configuration"),
            "bigflow.build" => Ok("bigflow.build"),
            "typing" => Ok("typing"),
            // Imported and perhaps unused; any use of it leads to Python.
            "os" | "os.path" | "sys" | "pathlib" | "setuptools" => Ok("standard"),
            _ => self.needs_python(node, "this import"),
        }
    }

    fn bind(&mut self, name: &str, bound: Bound) {
        self.names.insert(name.to_owned(), bound);
    }

    fn value(&mut self, expression: &Expr) -> Outcome<PropertyValue> {
        match self.expression(expression)? {
            Bound::Value(value) => Ok(value),
            _ => self.needs_python(expression, "this value"),
        }
    }

    fn expression(&mut self, expression: &Expr) -> Outcome<Bound> {
        let value = match expression {
            Expr::NoneLiteral(_) => PropertyValue::None,
            Expr::BooleanLiteral(literal) => PropertyValue::Bool(literal.value),
            Expr::StringLiteral(literal) => PropertyValue::Str(literal.value.to_str().to_owned()),
            Expr::NumberLiteral(literal) => match &literal.value {
                Number::Int(value) => match value.as_i64() {
                    Some(value) => PropertyValue::Int(value),
                    None => return self.needs_python(literal, "so large a number"),
                },
                Number::Float(value) if value.is_finite() => PropertyValue::Float(*value),
                _ => return self.needs_python(literal, "this number"),
            },
            Expr::List(list) => self.list(&list.elts)?,
            Expr::Tuple(tuple) => self.list(&tuple.elts)?,
            Expr::Dict(dict) => {
                let mut items = Vec::new();
                for item in &dict.items {
                    match &item.key {
                        Some(key) => {
                            let key = self.key(key)?;
                            let value = self.value(&item.value)?;
                            set_item(&mut items, key, value);
                        }
                        None => self.merge(&mut items, &item.value)?,
                    }
                }
                PropertyValue::Dict(items)
            }
            Expr::FString(text) => PropertyValue::Str(self.f_string(text)?),
            Expr::BinOp(operation) => {
                let left = self.value(&operation.left)?;
                let right = self.value(&operation.right)?;
                match (operation.op, left, right) {
                    (Operator::Add, PropertyValue::Str(left), PropertyValue::Str(right)) => {
                        PropertyValue::Str(left + &right)
                    }
                    (
                        Operator::BitOr,
                        PropertyValue::Dict(mut left),
                        PropertyValue::Dict(right),
                    ) => {
                        for (key, value) in right {
                            set_item(&mut left, key, value);
                        }
                        PropertyValue::Dict(left)
                    }
                    _ => return self.needs_python(operation, "this operation"),
                }
            }
            Expr::UnaryOp(operation) => match (operation.op, self.value(&operation.operand)?) {
                (UnaryOp::USub, PropertyValue::Int(value)) if value != i64::MIN => {
                    PropertyValue::Int(-value)
                }
                (UnaryOp::USub, PropertyValue::Float(value)) => PropertyValue::Float(-value),
                (UnaryOp::Not, value) => match value.truth() {
                    Some(truth) => PropertyValue::Bool(!truth),
                    None => return self.needs_python(operation, "this operation"),
                },
                _ => return self.needs_python(operation, "this operation"),
            },
            Expr::Compare(comparison) => match (&*comparison.ops, &*comparison.comparators) {
                ([operator @ (CmpOp::Eq | CmpOp::NotEq)], [right]) => {
                    match (self.value(&comparison.left)?, self.value(right)?) {
                        (PropertyValue::Str(left), PropertyValue::Str(right)) => {
                            PropertyValue::Bool((left == right) == (*operator == CmpOp::Eq))
                        }
                        _ => return self.needs_python(comparison, "this comparison"),
                    }
                }
                _ => return self.needs_python(comparison, "this comparison"),
            },
            Expr::BoolOp(operation) => return self.bool_operation(operation.op, &operation.values),
            Expr::Name(name) => {
                return match self.names.get(name.id.as_str()) {
                    Some(bound) => Ok(bound.clone()),
                    None => self.needs_python(name, "this name"),
                };
            }
            Expr::Attribute(attribute) => {
                let bound = match self.expression(&attribute.value)? {
                    Bound::Module(module) => member(module, attribute.attr.as_str()),
                    Bound::Config(index) => match attribute.attr.as_str() {
                        "add_configuration" => Some(Bound::AddConfiguration(index)),
                        "ad_configuration" => {
                            self.warn(
                                attribute,
                                "`ad_configuration` was never released under this name: write `add_configuration`",
                            );
                            Some(Bound::AddConfiguration(index))
                        }
                        _ => None,
                    },
                    _ => None,
                };
                return match bound {
                    Some(bound) => Ok(bound),
                    None => self.needs_python(attribute, "this attribute"),
                };
            }
            Expr::Call(call) => {
                let function = self.expression(&call.func)?;
                return self.call(expression, &function, &call.arguments);
            }
            other => return self.needs_python(other, "this expression"),
        };
        Ok(Bound::Value(value))
    }

    fn bool_operation(&mut self, operator: BoolOp, operands: &[Expr]) -> Outcome<Bound> {
        let mut last = PropertyValue::None;
        for operand in operands {
            last = self.value(operand)?;
            let Some(truth) = last.truth() else {
                return self.needs_python(operand, "this operation");
            };
            if truth == (operator == BoolOp::Or) {
                break;
            }
        }
        Ok(Bound::Value(last))
    }

    fn list(&mut self, items: &[Expr]) -> Outcome<PropertyValue> {
        items
            .iter()
            .map(|item| self.value(item))
            .collect::<Outcome<_>>()
            .map(PropertyValue::List)
    }

    fn key(&mut self, expression: &Expr) -> Outcome<String> {
        match self.value(expression)? {
            PropertyValue::Str(key) => Ok(key),
            _ => self.needs_python(expression, "a key that is not a text"),
        }
    }

    /// `**expression`.
    fn merge(
        &mut self,
        items: &mut Vec<(String, PropertyValue)>,
        expression: &Expr,
    ) -> Outcome<()> {
        let PropertyValue::Dict(merged) = self.value(expression)? else {
            return self.needs_python(expression, "this `**`");
        };
        for (key, value) in merged {
            set_item(items, key, value);
        }
        Ok(())
    }

    fn f_string(&mut self, text: &ExprFString) -> Outcome<String> {
        let mut result = String::new();
        for part in &text.value {
            let string = match part {
                FStringPart::Literal(literal) => {
                    result.push_str(literal.as_str());
                    continue;
                }
                FStringPart::FString(string) => string,
            };
            for element in &string.elements {
                let interpolation = match element {
                    InterpolatedStringElement::Literal(literal) => {
                        result.push_str(&literal.value);
                        continue;
                    }
                    InterpolatedStringElement::Interpolation(interpolation) => interpolation,
                };
                let plain = interpolation.format_spec.is_none()
                    && interpolation.debug_text.is_none()
                    && matches!(
                        interpolation.conversion,
                        ConversionFlag::None | ConversionFlag::Str
                    );
                if !plain {
                    return self.needs_python(interpolation, "this f-string");
                }
                match text_of(&self.value(&interpolation.expression)?) {
                    Some(text) => result.push_str(&text),
                    None => return self.needs_python(interpolation, "this f-string"),
                }
            }
        }
        Ok(result)
    }

    fn call(&mut self, node: &Expr, function: &Bound, arguments: &Arguments) -> Outcome<Bound> {
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

/// `str(value)`, where it needs no knowledge of how Python writes numbers.
fn text_of(value: &PropertyValue) -> Option<String> {
    match value {
        PropertyValue::Str(text) => Some(text.clone()),
        PropertyValue::Int(value) => Some(value.to_string()),
        PropertyValue::Bool(true) => Some("True".to_owned()),
        PropertyValue::Bool(false) => Some("False".to_owned()),
        PropertyValue::None => Some("None".to_owned()),
        _ => None,
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
