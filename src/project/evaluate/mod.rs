//! Evaluates the small Python that configuration files are written in, without
//! starting Python.
//!
//! What this cannot evaluate *exactly* is reported as [`EvaluateError::NeedsPython`],
//! and the caller runs the file instead: nothing is guessed. This room is the only one
//! that touches the parser, whose interface is not stable.

mod call;
mod expression;

use std::collections::HashMap;

use ruff_python_ast::{Expr, Stmt};
use ruff_text_size::{Ranged, TextSize};

use super::config::{ConfigError, DeploymentConfig};
use super::value::PropertyValue;

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
    /// The environment variables that were asked for, by their names.
    pub(crate) variables: Vec<String>,
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
    /// `os.environ`.
    Environment,
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
    /// `os.getenv`, and `os.environ.get`.
    GetVariable,
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
        ("os", "environ") => Bound::Environment,
        ("os", "getenv") => Bound::Function(Function::GetVariable),
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
                        (None, "os") => self.bind("os", Bound::Module("os")),
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
            "os" => Ok("os"),
            "os.path" | "sys" | "pathlib" | "setuptools" => Ok("standard"),
            _ => self.needs_python(node, "this import"),
        }
    }

    fn bind(&mut self, name: &str, bound: Bound) {
        self.names.insert(name.to_owned(), bound);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::evaluate;

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            let _ = evaluate(&text, "__main__");
        }

        #[test]
        fn no_mixture_of_python_makes_it_panic(pieces in prop::collection::vec(
            prop::sample::select(vec![
                "from bigflow import Config", "\n", "c", " = ", "Config(", "name=", "'dev'", ", ", "{", "}", "**", ")",
                ".add_configuration(", "f'{c!r}{", "}'", "[", "]", "if ", ":", "\n    ", "-", "9223372036854775808", "not ",
                "\u{feff}", "é", "'", "\\", "#", "dict(", "a=1", " or ", " == ", "\t",
            ]),
            0..25,
        )) {
            let _ = evaluate(&pieces.concat(), "__main__");
        }
    }
}
