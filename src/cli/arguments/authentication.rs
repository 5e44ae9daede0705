//! Who we are.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How to log in, in BigFlow's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(in crate::cli) enum AuthMethodArgument {
    /// Application Default Credentials or gcloud
    LocalAccount,
    /// A token from Vault's Google secrets engine
    Vault,
}

/// Who we are.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct AuthenticationArguments {
    /// How to log in to Google
    #[arg(
        short,
        long,
        value_enum,
        default_value = "local_account",
        help_heading = "Login"
    )]
    pub(in crate::cli) auth_method: AuthMethodArgument,

    /// What gives the token, for --auth-method vault: a full URL, or a path under $VAULT_ADDR (also -ve) [default: the environment's vault_endpoint]
    #[arg(long, value_name = "URL|PATH", help_heading = "Login")]
    pub(in crate::cli) vault_endpoint: Option<String>,

    /// Whether Vault's certificate is verified: true, false, or a PEM file or folder with the authorities to trust (also -vev) [default: the environment's vault_endpoint_verify, $VAULT_CACERT, $VAULT_CAPATH, else true]
    #[arg(long, value_name = "true|false|PATH", help_heading = "Login")]
    pub(in crate::cli) vault_endpoint_verify: Option<String>,

    /// The Vault token, for --auth-method vault (also -vs) [default: the environment's vault_secret, $VAULT_TOKEN, else ~/.vault-token]; a process list shows it, $bf_vault_secret does not
    #[arg(
        long,
        value_name = "TOKEN",
        hide_env_values = true,
        help_heading = "Login"
    )]
    pub(in crate::cli) vault_secret: Option<String>,

    /// Log in to Vault with this AppRole; its secret id is in $VAULT_SECRET_ID or --vault-secret-id-file [default: $VAULT_ROLE_ID]
    #[arg(long, value_name = "ID", help_heading = "Login")]
    pub(in crate::cli) vault_role_id: Option<String>,

    /// The AppRole's secret id [default: $VAULT_SECRET_ID_FILE]
    #[arg(long, value_name = "PATH", help_heading = "Login")]
    pub(in crate::cli) vault_secret_id_file: Option<PathBuf>,

    /// Log in to Vault with the JSON web token of a CI service [default: $VAULT_JWT_FILE]
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with = "vault_role_id",
        help_heading = "Login"
    )]
    pub(in crate::cli) vault_jwt_file: Option<PathBuf>,

    /// The role of --vault-jwt-file [default: $VAULT_ROLE, else the login method's own]
    #[arg(long, value_name = "ROLE", help_heading = "Login")]
    pub(in crate::cli) vault_role: Option<String>,

    /// Where Vault's login method is mounted [default: $VAULT_AUTH_MOUNT, else approle or jwt]
    #[arg(long, value_name = "PATH", help_heading = "Login")]
    pub(in crate::cli) vault_auth_mount: Option<String>,

    /// Read the Google access token from a file
    #[arg(long, value_name = "PATH", help_heading = "Login")]
    pub(in crate::cli) access_token_file: Option<PathBuf>,

    /// Also trust the certificate authorities of this PEM file, or of the files of this folder; $SSL_CERT_FILE and Docker's certs.d/HOST work too
    #[arg(long, value_name = "PATH", help_heading = "Login")]
    pub(in crate::cli) ca_file: Vec<PathBuf>,
}
