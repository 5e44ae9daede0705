//! Where Vault is and how one logs in to it: what flags, configuration and the
//! variables of Vault's own tools say.

use std::path::PathBuf;

use url::Url;

use crate::credentials::{CredentialError, Secret};
use crate::http::TlsVerification;

/// What flags and the project's configuration say; the rest comes from Vault's
/// own variables.
#[derive(Debug, Clone, Default)]
pub struct VaultOptions {
    /// BigFlow's `vault_endpoint`: the full URL that gives the token, or a path
    /// under `VAULT_ADDR`.
    pub endpoint: Option<String>,
    /// BigFlow's `vault_endpoint_verify`: `true`, `false`, or a PEM file or folder.
    pub verify: Option<String>,
    /// The Vault token that was given for this command.
    pub secret: Option<Secret>,
    /// BigFlow's `vault_secret` of the environment.
    pub configured_secret: Option<Secret>,
    /// The AppRole's role id.
    pub role_id: Option<String>,
    /// A file with the AppRole's secret id.
    pub secret_id_file: Option<PathBuf>,
    /// A file with the JSON web token that a CI service has made.
    pub jwt_file: Option<PathBuf>,
    /// The role of a JWT login; the mount's default role if there is none.
    pub role: Option<String>,
    /// Where the login method is mounted: `approle` or `jwt` if there is none.
    pub auth_mount: Option<String>,
}

/// How one becomes somebody to Vault.
#[derive(Debug, Clone)]
pub enum VaultLogin {
    /// A token that somebody else made.
    Token {
        /// The token.
        secret: Secret,
        /// Who said so, for error messages.
        origin: &'static str,
    },
    /// A file with a token, read again for every use: an agent keeps it fresh.
    TokenFile(PathBuf),
    /// `auth/MOUNT/login` with role id and secret id.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// Which role; not a secret by itself.
        role_id: String,
        /// What proves it.
        secret_id: SecretText,
    },
    /// `auth/MOUNT/login` with a JSON web token.
    Jwt {
        /// Where the method is mounted.
        mount: String,
        /// Which role; the mount's default if there is none.
        role: Option<String>,
        /// A file with the web token, read again for every login.
        file: PathBuf,
    },
}

/// A secret text, or the file that has it.
#[derive(Debug, Clone)]
pub enum SecretText {
    /// The text.
    Given(Secret),
    /// Read again for every use.
    File(PathBuf),
}

/// Everything about one path of one Vault server.
#[derive(Debug, Clone)]
pub struct VaultSettings {
    /// The full address that is read, path included.
    pub endpoint: Url,
    /// How one logs in.
    pub login: VaultLogin,
    /// `X-Vault-Namespace`.
    pub namespace: Option<String>,
    /// How the server's certificate is judged.
    pub verify: TlsVerification,
}

/// Reads one environment variable.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

impl VaultSettings {
    /// Puts options and variables together. `variable` reads one environment variable.
    ///
    /// The login is the first that is there of: the given token; role id or web
    /// token of a flag; the configured `vault_secret`; `VAULT_TOKEN`;
    /// `VAULT_ROLE_ID`; `VAULT_JWT_FILE`; the file `~/.vault-token`.
    ///
    /// # Errors
    /// [`CredentialError::Misconfigured`] with what is missing.
    pub fn resolve(
        options: VaultOptions,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, CredentialError> {
        let endpoint = options.endpoint.as_deref().ok_or_else(|| {
            misconfigured(
                "vault_endpoint is missing; give --vault-endpoint, set bf_vault_endpoint, or write vault_endpoint into the environment's properties",
            )
        })?;
        Ok(Self {
            endpoint: full_address(endpoint, variable)?,
            namespace: variable("VAULT_NAMESPACE"),
            verify: verification(options.verify.as_deref(), variable)?,
            login: login(options, variable)?,
        })
    }
}

pub(super) fn misconfigured(problem: impl Into<String>) -> CredentialError {
    CredentialError::Misconfigured {
        source_name: "Vault".to_owned(),
        problem: problem.into(),
    }
}

/// BigFlow wants the full URL; Vault's users know paths under `VAULT_ADDR`.
fn full_address(endpoint: &str, variable: Variable<'_>) -> Result<Url, CredentialError> {
    let parse = |text: &str| {
        Url::parse(text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    };
    if endpoint.contains("://") {
        return parse(endpoint).ok_or_else(|| {
            misconfigured(format!(
                "the endpoint {endpoint:?} must be a full address such as https://vault.example.com/v1/gcp/roleset/NAME/token"
            ))
        });
    }
    let Some(server) = variable("VAULT_ADDR") else {
        return Err(misconfigured(format!(
            "the endpoint {endpoint:?} is no full address, and VAULT_ADDR is not set; give one such as https://vault.example.com/v1/gcp/roleset/NAME/token"
        )));
    };
    let path = endpoint.trim_start_matches('/');
    let path = path.strip_prefix("v1/").unwrap_or(path);
    parse(&format!("{}/v1/{path}", server.trim_end_matches('/')))
        .ok_or_else(|| misconfigured(format!("VAULT_ADDR is {server:?}, which is no address")))
}

fn verification(
    given: Option<&str>,
    variable: Variable<'_>,
) -> Result<TlsVerification, CredentialError> {
    match given {
        Some("true" | "True") => Ok(TlsVerification::System),
        Some("false" | "False") => Ok(TlsVerification::Off),
        Some("") => Err(misconfigured(
            "vault_endpoint_verify is empty; it must be true, false, or a PEM file",
        )),
        Some(path) => Ok(TlsVerification::Authority(path.into())),
        None => {
            let skip = variable("VAULT_SKIP_VERIFY")
                .is_some_and(|text| matches!(text.as_str(), "1" | "t" | "T" | "true" | "TRUE"));
            let authority = variable("VAULT_CACERT").or_else(|| variable("VAULT_CAPATH"));
            Ok(match authority {
                _ if skip => TlsVerification::Off,
                Some(path) => TlsVerification::Authority(path.into()),
                None => TlsVerification::System,
            })
        }
    }
}

fn login(options: VaultOptions, variable: Variable<'_>) -> Result<VaultLogin, CredentialError> {
    if let Some(secret) = options.secret {
        return token(secret, "--vault-secret");
    }
    let flagged = options.role_id.is_some() || options.jwt_file.is_some();
    if !flagged {
        if let Some(secret) = options.configured_secret {
            return token(secret, "vault_secret");
        }
        if let Some(text) = variable("VAULT_TOKEN") {
            return token(Secret::new(text), "VAULT_TOKEN");
        }
    }
    let mount = |default: &str| {
        (options.auth_mount.clone())
            .or_else(|| variable("VAULT_AUTH_MOUNT"))
            .unwrap_or_else(|| default.to_owned())
            .trim_matches('/')
            .to_owned()
    };
    let from_variable = |name| if flagged { None } else { variable(name) };
    if let Some(role_id) = options.role_id.or_else(|| from_variable("VAULT_ROLE_ID")) {
        let secret_id = match options.secret_id_file {
            Some(file) => SecretText::File(file),
            None => match (
                variable("VAULT_SECRET_ID"),
                variable("VAULT_SECRET_ID_FILE"),
            ) {
                (Some(text), _) => SecretText::Given(Secret::new(text)),
                (None, Some(file)) => SecretText::File(file.into()),
                (None, None) => {
                    return Err(misconfigured(
                        "an AppRole login needs a secret id; set VAULT_SECRET_ID, or give --vault-secret-id-file",
                    ));
                }
            },
        };
        return Ok(VaultLogin::AppRole {
            mount: mount("approle"),
            role_id,
            secret_id,
        });
    }
    let jwt_file =
        (options.jwt_file).or_else(|| from_variable("VAULT_JWT_FILE").map(PathBuf::from));
    if let Some(file) = jwt_file {
        return Ok(VaultLogin::Jwt {
            mount: mount("jwt"),
            role: options.role.or_else(|| variable("VAULT_ROLE")),
            file,
        });
    }
    let file = variable("HOME").map(|home| PathBuf::from(home).join(".vault-token"));
    match file.filter(|file| file.is_file()) {
        Some(file) => Ok(VaultLogin::TokenFile(file)),
        None => Err(misconfigured(
            "no Vault token was found; give --vault-secret, set bf_vault_secret or VAULT_TOKEN, log in with `vault login`, \
             or use an AppRole (VAULT_ROLE_ID and VAULT_SECRET_ID) or a web token (VAULT_JWT_FILE and VAULT_ROLE)",
        )),
    }
}

fn token(secret: Secret, origin: &'static str) -> Result<VaultLogin, CredentialError> {
    if secret.reveal().trim().is_empty() {
        return Err(misconfigured(format!(
            "the Vault token of {origin} is empty"
        )));
    }
    Ok(VaultLogin::Token { secret, origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://vault.test/v1/gcp/roleset/deployer/token";

    fn resolve(
        options: VaultOptions,
        variables: &[(&str, &str)],
    ) -> Result<VaultSettings, CredentialError> {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        VaultSettings::resolve(options, &find)
    }

    fn at(endpoint: &str) -> VaultOptions {
        VaultOptions {
            endpoint: Some(endpoint.to_owned()),
            ..VaultOptions::default()
        }
    }

    #[test]
    fn an_endpoint_is_a_full_address_or_a_path_under_vault_addr() {
        let address = ("VAULT_ADDR", "https://vault.test/");
        for (endpoint, expected) in [
            (URL, URL),
            ("gcp/roleset/deployer/token", URL),
            ("/v1/gcp/roleset/deployer/token", URL),
            ("http://other.test/v1/x", "http://other.test/v1/x"),
        ] {
            let settings = resolve(at(endpoint), &[address, ("VAULT_TOKEN", "s")]).unwrap();
            assert_eq!(settings.endpoint.as_str(), expected);
        }
        for (endpoint, variables, expected) in [
            ("gcp/token/x", &[][..], "VAULT_ADDR is not set"),
            ("gcp/token/x", &[("VAULT_ADDR", "vault.test")], "no address"),
            ("ftp://vault.test/x", &[], "full address"),
        ] {
            let error = resolve(at(endpoint), variables).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_first_login_of_the_order_counts() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".vault-token"), "s.file").unwrap();
        let mut variables = vec![
            ("VAULT_TOKEN", "s.variable"),
            ("VAULT_ROLE_ID", "role"),
            ("VAULT_SECRET_ID", "s.secret-id"),
            ("VAULT_JWT_FILE", "/run/jwt"),
            ("HOME", home.path().to_str().unwrap()),
        ];
        let described = |options: &VaultOptions, variables: &[(&str, &str)]| {
            let login = resolve(options.clone(), variables).unwrap().login;
            assert!(!format!("{login:?}").contains("s."), "{login:?}");
            match login {
                VaultLogin::Token { origin, .. } => origin.to_owned(),
                VaultLogin::TokenFile(_) => "file".to_owned(),
                VaultLogin::AppRole { mount, role_id, .. } => format!("{mount} {role_id}"),
                VaultLogin::Jwt { mount, role, .. } => format!("{mount} {role:?}"),
            }
        };
        let mut options = VaultOptions {
            secret: Some(Secret::new("s.flag")),
            role_id: Some("flagged".to_owned()),
            configured_secret: Some(Secret::new("s.configured")),
            ..at(URL)
        };
        assert_eq!(described(&options, &variables), "--vault-secret");
        options.secret = None;
        assert_eq!(described(&options, &variables), "approle flagged");
        options.role_id = None;
        assert_eq!(described(&options, &variables), "vault_secret");
        options.configured_secret = None;
        assert_eq!(described(&options, &variables), "VAULT_TOKEN");
        variables.remove(0);
        assert_eq!(described(&options, &variables), "approle role");
        variables.drain(..2);
        variables.push(("VAULT_ROLE", "deployer"));
        variables.push(("VAULT_AUTH_MOUNT", "ci/"));
        assert_eq!(described(&options, &variables), "ci Some(\"deployer\")");
        variables.remove(0);
        assert_eq!(described(&options, &variables), "file");

        let error = resolve(options, &[]).unwrap_err().to_string();
        assert!(error.contains("VAULT_TOKEN"), "{error}");
    }

    #[test]
    fn certificates_are_verified_unless_somebody_says_no() {
        let file = || TlsVerification::Authority("/ca.pem".into());
        let cacert = ("VAULT_CACERT", "/ca.pem");
        for (given, variables, expected) in [
            (None, &[][..], TlsVerification::System),
            (None, &[cacert], file()),
            (None, &[("VAULT_CAPATH", "/ca.pem")], file()),
            (
                None,
                &[("VAULT_SKIP_VERIFY", "1"), cacert],
                TlsVerification::Off,
            ),
            (None, &[("VAULT_SKIP_VERIFY", "0")], TlsVerification::System),
            (
                Some("true"),
                &[("VAULT_SKIP_VERIFY", "1")],
                TlsVerification::System,
            ),
            (Some("false"), &[cacert], TlsVerification::Off),
            (Some("/ca.pem"), &[], file()),
        ] {
            let found = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(verification(given, &found).unwrap(), expected);
        }
    }
}
