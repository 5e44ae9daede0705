//! The meaning of `deployment_config.py`: BigFlow's `Config`, exactly.
//!
//! Its rules are peculiar (one pass of substitution, in insertion order, over
//! raw values) and projects have come to rely on them, so they are kept as
//! `bigflow/configuration.py` of BigFlow 1.11.3 has them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::names::{EnvironmentName, InvalidName};
use super::value::{PropertyValue, get_item, set_item};

/// Why a configuration has no meaning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The environment is not in the file.
    #[error("there is no environment {name:?} in the deployment configuration; it has {}", known.join(", "))]
    NoSuchEnvironment {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Neither the command nor the file says which environment is meant.
    #[error("no environment is named, and the deployment configuration has no default one; it has {}", known.join(", "))]
    NoDefault {
        /// What there is.
        known: Vec<String>,
    },
    /// Two environments call themselves the default.
    #[error("the default environment is already {first:?}: {second:?} cannot be the default too")]
    SecondDefault {
        /// The earlier one.
        first: String,
        /// The later one.
        second: String,
    },
    /// A property `env` contradicts the environment's name.
    #[error("environment {name:?} has a property `env` with another value")]
    EnvironmentMismatch {
        /// The environment.
        name: String,
    },
    /// A property is `None`, and no variable fills it.
    #[error(
        "property {key:?} is None in the configuration, and the environment variable {variable:?} that would fill it is not set"
    )]
    Unset {
        /// The property.
        key: String,
        /// The variable that would give it.
        variable: String,
    },
    /// A property is not there.
    #[error(
        "property {key:?} is not in environment {environment}, and the environment variable {variable:?} is not set"
    )]
    Missing {
        /// The property.
        key: String,
        /// The environment that was asked.
        environment: EnvironmentName,
        /// The variable that would give it.
        variable: String,
    },
    /// A property has a type that cannot be used.
    #[error("property {key:?} must be a text (str), but is a {found}")]
    NotText {
        /// The property.
        key: String,
        /// Its Python type.
        found: String,
    },
    /// An environment's name cannot be used.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// Properties in their order, as the file has them.
type RawProperties = Vec<(String, PropertyValue)>;

/// `deployment_config.py`, evaluated: environments with their raw properties.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentConfig {
    master: RawProperties,
    environments: Vec<(String, RawProperties)>,
    default: Option<String>,
    prefix: String,
}

impl DeploymentConfig {
    /// The prefix of environment variables that fill properties, if the file names none.
    pub const DEFAULT_PREFIX: &'static str = "bf_";

    /// `DeploymentConfig(name, properties, is_master, is_default, environment_variables_prefix)`.
    pub fn new(
        name: &str,
        properties: Vec<(String, PropertyValue)>,
        is_master: bool,
        is_default: bool,
        prefix: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self {
            master: if is_master {
                properties.clone()
            } else {
                Vec::new()
            },
            environments: Vec::new(),
            default: None,
            prefix: prefix
                .filter(|prefix| !prefix.is_empty())
                .unwrap_or(Self::DEFAULT_PREFIX)
                .to_owned(),
        };
        config.add(name, properties, is_default)?;
        Ok(config)
    }

    /// `.add_configuration(name, properties, is_default)`.
    pub fn add(
        &mut self,
        name: &str,
        properties: Vec<(String, PropertyValue)>,
        is_default: bool,
    ) -> Result<(), ConfigError> {
        if get_item(&properties, "env").is_some_and(|env| env.as_str() != Some(name)) {
            return Err(ConfigError::EnvironmentMismatch {
                name: name.to_owned(),
            });
        }
        let mut merged = self.master.clone();
        for (key, value) in properties {
            set_item(&mut merged, key, value);
        }
        set_item(
            &mut merged,
            "env".to_owned(),
            PropertyValue::Str(name.to_owned()),
        );
        set_item(&mut self.environments, name.to_owned(), merged);
        if is_default {
            if let Some(first) = self.default.as_ref().filter(|first| !first.is_empty()) {
                return Err(ConfigError::SecondDefault {
                    first: first.clone(),
                    second: name.to_owned(),
                });
            }
            self.default = Some(name.to_owned());
        }
        Ok(())
    }

    /// The environments' names, in the order of the file.
    pub fn environments(&self) -> Vec<&str> {
        self.environments
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The prefix of the environment variables that fill properties.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The properties of one environment.
    ///
    /// `environment` is what the user asked for; without it the variable
    /// `<prefix>env` decides, then the file's default. `variables` are the process's
    /// environment variables in their order, which the substitution depends on.
    pub fn resolve(
        &self,
        environment: Option<&str>,
        variables: &[(String, String)],
    ) -> Result<ResolvedConfig, ConfigError> {
        let (name, raw) = self.choose(environment, variables)?;
        let mut properties: Vec<(String, Property)> = raw
            .iter()
            .map(|(key, value)| (key.clone(), Property::configured(value.clone())))
            .collect();
        for (variable, value) in variables {
            let Some(key) = variable.strip_prefix(&self.prefix) else {
                continue;
            };
            let absent = get_item(&properties, key)
                .is_none_or(|property| property.value == PropertyValue::None);
            if absent {
                set_item(
                    &mut properties,
                    key.to_owned(),
                    Property::from_variable(variable, value),
                );
            }
        }
        if let Some((key, _)) = properties
            .iter()
            .find(|(_, property)| property.value == PropertyValue::None)
        {
            return Err(ConfigError::Unset {
                key: key.clone(),
                variable: format!("{}{key}", self.prefix),
            });
        }
        let resolved = properties
            .iter()
            .map(|(key, property)| (key.clone(), substitute(property, &properties)))
            .collect();
        Ok(ResolvedConfig {
            environment: name.parse()?,
            prefix: self.prefix.clone(),
            properties: resolved,
        })
    }

    fn choose(
        &self,
        environment: Option<&str>,
        variables: &[(String, String)],
    ) -> Result<(&str, &RawProperties), ConfigError> {
        // BigFlow compares with "_bf", a slip of its own; such a prefix reads `bf_env`.
        let variable = if self.prefix == "_bf" {
            "bf_env".to_owned()
        } else {
            format!("{}env", self.prefix)
        };
        let known = || self.environments().into_iter().map(str::to_owned).collect();
        let name = environment
            .filter(|name| !name.is_empty())
            .or_else(|| get_item(variables, &variable).map(String::as_str))
            .filter(|name| !name.is_empty())
            .or_else(|| self.default.as_deref().filter(|name| !name.is_empty()))
            .ok_or_else(|| ConfigError::NoDefault { known: known() })?;
        self.environments
            .iter()
            .find(|(existing, _)| existing == name)
            .map(|(name, properties)| (name.as_str(), properties))
            .ok_or_else(|| ConfigError::NoSuchEnvironment {
                name: name.to_owned(),
                known: known(),
            })
    }
}

/// One pass of `str.replace` over the raw values, in their order.
fn substitute(property: &Property, properties: &[(String, Property)]) -> Property {
    let PropertyValue::Str(raw) = &property.value else {
        return property.clone();
    };
    let mut text = raw.clone();
    let mut origin = property.origin.clone();
    for (key, other) in properties {
        let PropertyValue::Str(replacement) = &other.value else {
            continue;
        };
        let placeholder = format!("{{{key}}}");
        if replacement != raw && text.contains(&placeholder) {
            text = text.replace(&placeholder, replacement);
            if origin == PropertyOrigin::Configuration {
                origin = other.origin.clone();
            }
        }
    }
    Property {
        value: PropertyValue::Str(text),
        origin,
    }
}

/// Where a property's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropertyOrigin {
    /// The configuration file.
    Configuration,
    /// Wholly or partly an environment variable, by its name: as often as not a
    /// secret, so it is neither printed nor stored.
    Variable(String),
}

/// A resolved property. `Debug` does not show what came from a variable.
#[derive(Clone, PartialEq)]
pub struct Property {
    /// The value.
    pub value: PropertyValue,
    /// Where it comes from.
    pub origin: PropertyOrigin,
}

impl Property {
    const fn configured(value: PropertyValue) -> Self {
        Self {
            value,
            origin: PropertyOrigin::Configuration,
        }
    }

    fn from_variable(variable: &str, value: &str) -> Self {
        Self {
            value: PropertyValue::Str(value.to_owned()),
            origin: PropertyOrigin::Variable(variable.to_owned()),
        }
    }

    /// Whether the value must be masked wherever it could be seen.
    pub fn is_secret(&self) -> bool {
        matches!(self.origin, PropertyOrigin::Variable(_))
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            PropertyOrigin::Configuration => fmt::Debug::fmt(&self.value, formatter),
            PropertyOrigin::Variable(name) => write!(formatter, "(from ${name})"),
        }
    }
}

/// The properties of one environment, after filling and substitution.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedConfig {
    /// Which environment.
    pub environment: EnvironmentName,
    prefix: String,
    properties: Vec<(String, Property)>,
}

impl ResolvedConfig {
    /// A property with its origin.
    pub fn property(&self, key: &str) -> Option<&Property> {
        get_item(&self.properties, key)
    }

    /// A property's value.
    pub fn get(&self, key: &str) -> Option<&PropertyValue> {
        self.property(key).map(|property| &property.value)
    }

    /// A property that must be a text if it is there.
    pub fn text(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(PropertyValue::Str(text)) => Ok(Some(text)),
            Some(other) => Err(ConfigError::NotText {
                key: key.to_owned(),
                found: other.type_name().to_owned(),
            }),
        }
    }

    /// A text property that must be there.
    pub fn required(&self, key: &str) -> Result<&str, ConfigError> {
        self.text(key)?.ok_or_else(|| ConfigError::Missing {
            key: key.to_owned(),
            environment: self.environment.clone(),
            variable: format!("{}{key}", self.prefix),
        })
    }

    /// All properties, in BigFlow's order.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &Property)> {
        self.properties
            .iter()
            .map(|(key, property)| (key.as_str(), property))
    }
}

/// This process's environment variables, in the order Python sees them; those
/// that are not UTF-8 are left out.
pub fn process_variables() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(items: &[(&str, &str)]) -> Vec<(String, PropertyValue)> {
        items
            .iter()
            .map(|(key, value)| ((*key).to_owned(), PropertyValue::Str((*value).to_owned())))
            .collect()
    }

    fn variables(items: &[(&str, &str)]) -> Vec<(String, String)> {
        items
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn config(items: &[(&str, &str)]) -> DeploymentConfig {
        DeploymentConfig::new("dev", texts(items), true, true, None).unwrap()
    }

    #[test]
    fn substitution_is_one_pass_in_order() {
        let resolved = config(&[("a", "{b}"), ("b", "{c}"), ("c", "X")])
            .resolve(None, &[])
            .unwrap();
        assert_eq!(resolved.text("a").unwrap(), Some("X"));
        let resolved = config(&[("c", "X"), ("b", "{c}"), ("a", "{b}")])
            .resolve(None, &[])
            .unwrap();
        assert_eq!(resolved.text("a").unwrap(), Some("{c}"));
        let resolved = config(&[("a", "{{b}}"), ("b", "X"), ("d", "{nope}")])
            .resolve(None, &[])
            .unwrap();
        assert_eq!(resolved.text("a").unwrap(), Some("{X}"));
        assert_eq!(resolved.text("d").unwrap(), Some("{nope}"));
    }

    #[test]
    fn the_argument_wins_over_the_variable_and_that_over_the_default() {
        let mut config = config(&[("x", "master"), ("y", "kept")]);
        config.add("prod", texts(&[("x", "own")]), false).unwrap();
        let prod = variables(&[("bf_env", "prod")]);
        assert_eq!(
            config
                .resolve(Some("dev"), &prod)
                .unwrap()
                .environment
                .as_str(),
            "dev"
        );
        let resolved = config.resolve(None, &prod).unwrap();
        assert_eq!(resolved.environment.as_str(), "prod");
        assert_eq!(resolved.required("x"), Ok("own"));
        assert_eq!(resolved.required("y"), Ok("kept"));
        assert_eq!(resolved.required("env"), Ok("prod"));
        let unset = variables(&[("bf_env", "")]);
        assert_eq!(
            config.resolve(None, &unset).unwrap().environment.as_str(),
            "dev"
        );
        assert_eq!(
            config.resolve(Some("qa"), &[]).unwrap_err().to_string(),
            "there is no environment \"qa\" in the deployment configuration; it has dev, prod"
        );
    }

    #[test]
    fn what_a_variable_gave_is_never_shown_even_inside_another_value() {
        let config = DeploymentConfig::new(
            "dev",
            vec![
                (
                    "url".to_owned(),
                    PropertyValue::Str("https://{token}@host".to_owned()),
                ),
                ("token".to_owned(), PropertyValue::None),
                ("own".to_owned(), PropertyValue::Str(String::new())),
            ],
            true,
            true,
            None,
        )
        .unwrap();
        let resolved = config
            .resolve(
                None,
                &variables(&[("bf_token", "hunter2"), ("bf_own", "hunter2")]),
            )
            .unwrap();
        assert_eq!(resolved.required("url"), Ok("https://hunter2@host"));
        assert_eq!(resolved.required("own"), Ok(""), "a value of its own wins");
        assert!(resolved.property("url").unwrap().is_secret());
        assert!(!format!("{resolved:?}").contains("hunter2"));
        assert_eq!(
            config.resolve(None, &[]),
            Err(ConfigError::Unset {
                key: "token".to_owned(),
                variable: "bf_token".to_owned()
            })
        );
    }

    #[test]
    fn there_is_one_default() {
        let mut config = config(&[]);
        assert!(matches!(
            config.add("prod", Vec::new(), true),
            Err(ConfigError::SecondDefault { .. })
        ));
        let config = DeploymentConfig::new("dev", Vec::new(), true, false, None).unwrap();
        assert!(matches!(
            config.resolve(None, &[]),
            Err(ConfigError::NoDefault { .. })
        ));
    }
}
