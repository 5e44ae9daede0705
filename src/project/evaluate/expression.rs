//! Values: literals, names, f-strings, and the few operations that configurations use.

use ruff_python_ast::{
    BoolOp, CmpOp, ConversionFlag, Expr, ExprFString, FStringPart, InterpolatedStringElement,
    Number, Operator, UnaryOp,
};
use ruff_text_size::Ranged;

use super::{Bound, Evaluator, Function, Outcome, member};
use crate::project::value::{PropertyValue, get_item, set_item};

impl Evaluator<'_> {
    pub(super) fn value(&mut self, expression: &Expr) -> Outcome<PropertyValue> {
        match self.expression(expression)? {
            Bound::Value(value) => Ok(value),
            _ => self.needs_python(expression, "this value"),
        }
    }

    pub(super) fn expression(&mut self, expression: &Expr) -> Outcome<Bound> {
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
                    Bound::Environment if attribute.attr.as_str() == "get" => {
                        Some(Bound::Function(Function::GetVariable))
                    }
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
            Expr::Subscript(subscript) => {
                let subscripted = self.expression(&subscript.value)?;
                let key = self.key(&subscript.slice)?;
                let found = match &subscripted {
                    Bound::Environment => self.variable(subscript, &key)?,
                    Bound::Value(PropertyValue::Dict(items)) => get_item(items, &key).cloned(),
                    _ => None,
                };
                match found {
                    Some(value) => value,
                    // Python raises an exception, with its own words.
                    None => return self.needs_python(subscript, "this subscript"),
                }
            }
            other => return self.needs_python(other, "this expression"),
        };
        Ok(Bound::Value(value))
    }

    /// What `os.environ` has under a name.
    pub(super) fn variable(
        &mut self,
        node: &impl Ranged,
        name: &str,
    ) -> Outcome<Option<PropertyValue>> {
        self.result.variables.push(name.to_owned());
        match std::env::var_os(name).map(std::ffi::OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(PropertyValue::Str(value))),
            Some(Err(_)) => self.needs_python(node, "a variable that is not UTF-8"),
        }
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
    pub(super) fn merge(
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
}

/// `str(value)`, where it needs no knowledge of how Python writes numbers.
pub(super) fn text_of(value: &PropertyValue) -> Option<String> {
    match value {
        PropertyValue::Str(text) => Some(text.clone()),
        PropertyValue::Int(value) => Some(value.to_string()),
        PropertyValue::Bool(true) => Some("True".to_owned()),
        PropertyValue::Bool(false) => Some("False".to_owned()),
        PropertyValue::None => Some("None".to_owned()),
        _ => None,
    }
}
