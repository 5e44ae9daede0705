//! Flags that several commands share, named as BigFlow names them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::caching::CacheArguments;
use crate::artifacts::{DagOptions, ImageNaming, TargetOptions};
use crate::dags::LiveStarts;
use crate::environment::Retire;
use crate::project::DagFormat;
use crate::ui::{LogFormat, Printer, Verbosity, show_details};

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub(super) struct GlobalArguments {
    /// Run as if started in DIRECTORY
    #[arg(
        short = 'C',
        long,
        global = true,
        value_name = "DIRECTORY",
        help_heading = "Everywhere"
    )]
    pub(super) directory: Option<PathBuf>,

    /// The Python that can import the project [default: the active or the project's virtual environment, else python3]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Everywhere")]
    pub(super) python: Option<PathBuf>,

    /// Print the result as one JSON document
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(super) json: bool,

    /// Print no progress
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Everywhere"
    )]
    pub(super) quiet: bool,

    /// Print every request and every process that is started [default: if $BIGFLOW_VERBOSE is set]
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    pub(super) verbose: bool,

    /// How progress, warnings and errors are written to standard error
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        env = "FOREBAY_LOG_FORMAT",
        help_heading = "Everywhere"
    )]
    pub(super) log_format: LogFormatArgument,
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormatArgument {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl GlobalArguments {
    /// How the program talks.
    pub(super) fn printer(&self) -> Printer {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let verbosity = match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) if is_set("BIGFLOW_VERBOSE") => Verbosity::Verbose,
            (false, false) => Verbosity::Usual,
        };
        let format = match self.log_format {
            LogFormatArgument::Text => LogFormat::Text,
            LogFormatArgument::Json => LogFormat::Json,
        };
        if verbosity == Verbosity::Verbose {
            show_details(format);
        }
        Printer::new(self.json, verbosity, format)
    }
}

/// Which environment.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigArguments {
    /// The environment, as deployment_config.py names it: dev, prod [default: $bf_env, else the default one]
    #[arg(short, long, value_name = "ENVIRONMENT")]
    pub(super) config: Option<String>,

    /// Where deployment_config.py is (also -dc)
    #[arg(long, value_name = "PATH")]
    pub(super) deployment_config_path: Option<PathBuf>,
}

/// Where the image goes.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RepositoryArguments {
    /// The image repository, instead of the environment's docker_repository: HOST/NAME or oci:FOLDER
    #[arg(short = 'r', long, value_name = "REPOSITORY")]
    pub(super) docker_repository: Option<String>,

    /// Use plain HTTP for this registry (loopback addresses need no permission)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(super) insecure_registry: Vec<String>,
}

/// Where the DAG files go.
#[derive(Debug, Clone, Args)]
pub(super) struct BucketArguments {
    /// The bucket, instead of the environment's dags_bucket: NAME, gs://NAME, s3://NAME,
    /// az://CONTAINER or file://FOLDER
    #[arg(short = 'b', long, value_name = "BUCKET")]
    pub(super) dags_bucket: Option<String>,

    /// Accepted for BigFlow's sake: the bucket's name says enough
    #[arg(short = 'p', long, value_name = "PROJECT", hide_short_help = true)]
    pub(super) gcp_project_id: Option<String>,
}

impl ConfigArguments {
    /// What these flags say about the target of a command that reaches no bucket.
    pub(super) fn target_of_build(&self, repository: &RepositoryArguments) -> TargetOptions {
        TargetOptions {
            environment: self.config.clone(),
            deployment_config: self.deployment_config_path.clone(),
            docker_repository: repository.docker_repository.clone(),
            dags_bucket: None,
        }
    }
}

/// What commands take that make artifacts and reach no bucket.
#[derive(Debug, Clone, Args)]
pub(super) struct BuildArguments {
    /// Which environment.
    #[command(flatten)]
    pub(super) config: ConfigArguments,
    /// Where the image goes.
    #[command(flatten)]
    pub(super) repository: RepositoryArguments,
    /// Who we are.
    #[command(flatten)]
    pub(super) authentication: AuthenticationArguments,
    /// Where others have built.
    #[command(flatten)]
    pub(super) cache: CacheArguments,
}

/// One environment, with all that is needed to reach it.
#[derive(Debug, Clone, Args)]
pub(super) struct EnvironmentArguments {
    /// Which environment.
    #[command(flatten)]
    pub(super) config: ConfigArguments,
    /// Where the image goes.
    #[command(flatten)]
    pub(super) repository: RepositoryArguments,
    /// Where the DAG files go.
    #[command(flatten)]
    pub(super) bucket: BucketArguments,
    /// Who we are.
    #[command(flatten)]
    pub(super) authentication: AuthenticationArguments,
}

impl EnvironmentArguments {
    /// What these flags say about the target.
    pub(super) fn target(&self) -> TargetOptions {
        TargetOptions {
            dags_bucket: self.bucket.dags_bucket.clone(),
            ..self.config.target_of_build(&self.repository)
        }
    }
}

/// What all deploys take.
#[derive(Debug, Clone, Args)]
pub(super) struct DeployArguments {
    /// Which environment.
    #[command(flatten)]
    pub(super) environment: EnvironmentArguments,

    /// Where others have built.
    #[command(flatten)]
    pub(super) cache: CacheArguments,

    /// Write files of ours that somebody changed anew
    #[arg(long)]
    pub(super) restore_drift: bool,

    /// Let an older commit replace a newer one
    #[arg(long)]
    pub(super) allow_older: bool,
}

/// How to log in, in BigFlow's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum AuthMethodArgument {
    /// Application Default Credentials or gcloud
    LocalAccount,
    /// A token from Vault's Google secrets engine
    Vault,
}

/// Who we are.
#[derive(Debug, Clone, Args)]
pub(super) struct AuthenticationArguments {
    /// How to log in to Google
    #[arg(
        short,
        long,
        value_enum,
        default_value = "local_account",
        help_heading = "Login"
    )]
    pub(super) auth_method: AuthMethodArgument,

    /// What gives the token, for --auth-method vault: a full URL, or a path under $VAULT_ADDR (also -ve) [default: the environment's vault_endpoint]
    #[arg(long, value_name = "URL|PATH", help_heading = "Login")]
    pub(super) vault_endpoint: Option<String>,

    /// Whether Vault's certificate is verified: true, false, or a PEM file or folder with the authorities to trust (also -vev) [default: the environment's vault_endpoint_verify, $VAULT_CACERT, $VAULT_CAPATH, else true]
    #[arg(long, value_name = "true|false|PATH", help_heading = "Login")]
    pub(super) vault_endpoint_verify: Option<String>,

    /// The Vault token, for --auth-method vault (also -vs) [default: the environment's vault_secret, $VAULT_TOKEN, else ~/.vault-token]; a process list shows it, $bf_vault_secret does not
    #[arg(
        long,
        value_name = "TOKEN",
        hide_env_values = true,
        help_heading = "Login"
    )]
    pub(super) vault_secret: Option<String>,

    /// Log in to Vault with this AppRole; its secret id is in $VAULT_SECRET_ID or --vault-secret-id-file [default: $VAULT_ROLE_ID]
    #[arg(long, value_name = "ID", help_heading = "Login")]
    pub(super) vault_role_id: Option<String>,

    /// The AppRole's secret id [default: $VAULT_SECRET_ID_FILE]
    #[arg(long, value_name = "PATH", help_heading = "Login")]
    pub(super) vault_secret_id_file: Option<PathBuf>,

    /// Log in to Vault with the JSON web token of a CI service [default: $VAULT_JWT_FILE]
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with = "vault_role_id",
        help_heading = "Login"
    )]
    pub(super) vault_jwt_file: Option<PathBuf>,

    /// The role of --vault-jwt-file [default: $VAULT_ROLE, else the login method's own]
    #[arg(long, value_name = "ROLE", help_heading = "Login")]
    pub(super) vault_role: Option<String>,

    /// Where Vault's login method is mounted [default: $VAULT_AUTH_MOUNT, else approle or jwt]
    #[arg(long, value_name = "PATH", help_heading = "Login")]
    pub(super) vault_auth_mount: Option<String>,

    /// Read the Google access token from a file
    #[arg(long, value_name = "PATH", help_heading = "Login")]
    pub(super) access_token_file: Option<PathBuf>,

    /// Also trust the certificate authorities of this PEM file, or of the files of this folder; $SSL_CERT_FILE and Docker's certs.d/HOST work too
    #[arg(long, value_name = "PATH", help_heading = "Login")]
    pub(super) ca_file: Vec<PathBuf>,
}

/// What goes into the DAG files.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
pub(super) struct DagArguments {
    /// This workflow alone [default: ALL]
    #[arg(short, long, value_name = "ID")]
    pub(super) workflow: Option<String>,

    /// The first runtime: "2024-01-01 00:00:00", 2024-01-01 or NOW [default: a deploy keeps that of the live generation; otherwise, and with NOW, the current hour]
    #[arg(short = 't', long, value_name = "TIME")]
    pub(super) start_time: Option<String>,

    /// How DAG files are written [default: [tool.forebay.dags] format, else default]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(super) dag_format: Option<DagFormatArgument>,

    /// How DAG files name the image: by digest, or by the version's tag as BigFlow does [default: digest; tag with bigflow-1.11]
    #[arg(long, value_enum, value_name = "KIND")]
    pub(super) image_ref: Option<ImageReferenceArgument>,
}

/// Which DAG files a deploy takes.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
pub(super) struct DeployedDagArguments {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) dags: DagArguments,

    /// Deploy the DAG files of this folder, which `bigflow build-dags` or `forebay build-dags` has written, and build nothing (also -dd)
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["start_time", "dag_format", "image_ref"])]
    pub(super) dags_dir: Option<PathBuf>,

    #[command(flatten)]
    #[serde(flatten)]
    pub(super) replacing: ReplacingArguments,
}

/// What becomes of the DAG files that are there.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
pub(super) struct ReplacingArguments {
    /// What becomes of a DAG file that is no longer wanted: deleted at once, or given an end_date, so that running tasks finish, and deleted by the next deploy [default: delete]
    #[arg(long, value_enum, value_name = "HOW")]
    #[serde(skip)]
    pub(super) retire: Option<RetireArgument>,

    /// At the first deploy: record the DAG files that BigFlow has deployed as generation 1, which can be rolled back to, and replace them
    #[arg(long, conflicts_with = "no_adopt")]
    #[serde(skip)]
    pub(super) adopt: bool,

    /// At the first deploy: leave the DAG files that BigFlow has deployed running beside the new ones
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) no_adopt: bool,

    /// Delete everything else in the folder of DAG files, last, except airflow_monitoring.py; asks if that belongs to others (also -cdf)
    #[arg(long)]
    #[serde(skip)]
    pub(super) clear_dags_folder: bool,

    /// Agree to what --clear-dags-folder deletes of others
    #[arg(long)]
    #[serde(skip)]
    pub(super) yes: bool,
}

/// What becomes of a DAG file that is no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RetireArgument {
    /// It is deleted at once
    Delete,
    /// It is given an end_date, and deleted by the next deploy
    Drain,
}

impl ReplacingArguments {
    /// What becomes of files that are no longer wanted.
    pub(super) fn retire(&self) -> Retire {
        match self.retire {
            None | Some(RetireArgument::Delete) => Retire::Delete,
            Some(RetireArgument::Drain) => Retire::Drain,
        }
    }
}

/// How DAG files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DagFormatArgument {
    /// For every Airflow from 2.3 to 3
    Default,
    /// Byte for byte as BigFlow 1.11.3 writes them
    #[value(name = "bigflow-1.11")]
    #[serde(rename = "bigflow-1.11")]
    Bigflow1_11,
}

/// How DAG files name the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ImageReferenceArgument {
    /// REPOSITORY@sha256:…, which never changes its meaning
    Digest,
    /// REPOSITORY:VERSION
    Tag,
}

impl DagArguments {
    /// What these flags say; BigFlow's `ALL` means no choice.
    pub(super) fn options(&self) -> DagOptions {
        let workflow = self.workflow.clone();
        DagOptions {
            workflow: workflow.filter(|workflow| workflow != "ALL"),
            start_time: self.start_time.clone(),
            live: LiveStarts::default(),
            format: self.dag_format.map(|format| match format {
                DagFormatArgument::Default => DagFormat::Default,
                DagFormatArgument::Bigflow1_11 => DagFormat::Bigflow1_11,
            }),
            image_naming: self.image_ref.map(|kind| match kind {
                ImageReferenceArgument::Digest => ImageNaming::Digest,
                ImageReferenceArgument::Tag => ImageNaming::Tag,
            }),
        }
    }
}

/// BigFlow's flags of two and three letters behind one dash, which clap does not know.
const LONG_NAMES: [(&str, &str); 6] = [
    ("-ve", "--vault-endpoint"),
    ("-vev", "--vault-endpoint-verify"),
    ("-vs", "--vault-secret"),
    ("-dc", "--deployment-config-path"),
    ("-dd", "--dags-dir"),
    ("-cdf", "--clear-dags-folder"),
];

/// Spells BigFlow's short flags out, alone or as `-dc=PATH`.
pub(super) fn spell_out(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let spell_out = |argument: OsString| {
        let text = argument.to_str()?;
        let (flag, value) = match text.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (text, None),
        };
        let (_, long) = LONG_NAMES.iter().find(|(short, _)| *short == flag)?;
        Some(match value {
            Some(value) => format!("{long}={value}").into(),
            None => OsString::from(long),
        })
    };
    arguments
        .into_iter()
        .map(|argument| spell_out(argument.clone()).unwrap_or(argument))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bigflows_short_flags_are_spelled_out() {
        let given = [
            "forebay",
            "deploy",
            "-dc",
            "x.py",
            "-ve=https://v",
            "-c",
            "dev",
            "-v",
        ];
        let spelled = spell_out(given.map(OsString::from));
        let expected = [
            "forebay",
            "deploy",
            "--deployment-config-path",
            "x.py",
            "--vault-endpoint=https://v",
            "-c",
            "dev",
            "-v",
        ];
        assert_eq!(spelled, expected.map(OsString::from));
    }
}
