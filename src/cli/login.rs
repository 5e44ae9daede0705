//! Who we are: to Google and to registries, as flags, settings and variables say; and to colleagues.

use super::arguments::{AuthMethodArgument, AuthenticationArguments};
use crate::artifacts::{BuildError, Target};
use crate::credentials::{AuthMethod, Secret, VaultOptions, VaultSettings};
use crate::http::{HttpOptions, TlsVerification};
use crate::progress::{Event, Progress};
use crate::ui::{CommandError, Exit};

/// The HTTP client's settings.
pub(super) fn http_options(authentication: &AuthenticationArguments) -> HttpOptions {
    HttpOptions {
        extra_certificates: authentication.ca_file.clone(),
        ..HttpOptions::default()
    }
}

/// How we log in.
pub(super) fn auth_method(
    target: &Target,
    arguments: &AuthenticationArguments,
) -> Result<AuthMethod, CommandError> {
    if let Some(path) = &arguments.access_token_file {
        return Ok(AuthMethod::AccessTokenFile(path.clone()));
    }
    match arguments.auth_method {
        AuthMethodArgument::LocalAccount => Ok(AuthMethod::LocalAccount),
        AuthMethodArgument::Vault => {
            let configured = |key| -> Result<Option<String>, CommandError> {
                let text = target.text(key).map_err(BuildError::from)?;
                Ok(text.map(str::to_owned))
            };
            let given = |flag: &Option<String>, key| match flag {
                Some(text) => Ok(Some(text.clone())),
                None => configured(key),
            };
            let options = VaultOptions {
                endpoint: given(&arguments.vault_endpoint, "vault_endpoint")?,
                verify: given(&arguments.vault_endpoint_verify, "vault_endpoint_verify")?,
                secret: arguments.vault_secret.clone().map(Secret::new),
                configured_secret: configured("vault_secret")?.map(Secret::new),
                role_id: arguments.vault_role_id.clone(),
                secret_id_file: arguments.vault_secret_id_file.clone(),
                jwt_file: arguments.vault_jwt_file.clone(),
                role: arguments.vault_role.clone(),
                auth_mount: arguments.vault_auth_mount.clone(),
            };
            let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
            let settings = VaultSettings::resolve(options, &variable)
                .map_err(|error| CommandError::from_error(Exit::Usage, &error))?;
            Ok(AuthMethod::Vault(Box::new(settings)))
        }
    }
}

/// Said at every command, until it is mended.
pub(super) fn warn_of_unverified_vault(method: &AuthMethod, progress: &dyn Progress) {
    if let AuthMethod::Vault(settings) = method
        && settings.verify == TlsVerification::Off
    {
        progress.report(Event::Warning(format!(
            "the certificate of Vault at {} is NOT verified: whoever sits on the line can read the Vault token and the Google token; \
             name the authority instead, with --vault-endpoint-verify PATH or VAULT_CACERT",
            settings.endpoint.host_str().unwrap_or_default()
        )));
    }
}

/// Who we are to colleagues: `USER@HOST`.
pub(super) fn holder() -> String {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = variable("USER")
        .or_else(|| variable("LOGNAME"))
        .unwrap_or_else(|| "somebody".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .or_else(|| variable("HOSTNAME"))
        .unwrap_or_else(|| "an unnamed machine".to_owned());
    format!("{user}@{host}")
}
