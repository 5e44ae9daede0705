//! `forebay cache keygen`

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::cache::{Domain, SigningKey};
use crate::cli::caching::key_file;
use crate::cli::context::Context;
use crate::ui::{CommandError, Exit};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes the private key to FILE, and nowhere else: give it to the jobs that may write, as a secret, \
    in $FOREBAY_CACHE_SIGNING_KEY (its text) or $FOREBAY_CACHE_SIGNING_KEY_FILE (its path). The public key is printed: name it in \
    [tool.forebay.cache] trusted_keys, or in $FOREBAY_CACHE_TRUSTED_KEYS, wherever its entries are to count.\n\n\
    Give jobs that run other people's code, such as pull requests, a key of another domain, and do not name that in release jobs.\n\nExamples:\n  forebay cache keygen release.key --domain release"
)]
pub(in crate::cli) struct Arguments {
    /// Where the private key goes; it must not be there yet
    file: PathBuf,

    /// For whom entries are that this key signs: a reader that trusts only keys of other domains never reads them
    #[arg(long, value_name = "NAME", default_value = "main")]
    domain: String,
}

/// What `--json` prints (`schema/cache-keygen.schema.json`).
#[derive(Debug, Serialize)]
struct Document {
    domain: String,
    /// The public key, as `trusted_keys` names it.
    trusted_key: String,
    file: PathBuf,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, CommandError> {
    let refused = |error| CommandError::from_error(Exit::Usage, &error);
    let domain: Domain = arguments.domain.parse().map_err(refused)?;
    let key = SigningKey::generate(domain).map_err(refused)?;
    let path = &arguments.file;
    key_file(path)
        .and_then(|mut file| {
            file.write_all(key.to_text().as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| {
            CommandError::new(Exit::Failed, format!("cannot write {}", path.display()))
                .why(error.to_string())
                .next("name a file that is not there yet, in a folder that can be written")
        })?;
    let document = Document {
        domain: key.public().domain.to_string(),
        trusted_key: key.public().to_string(),
        file: path.clone(),
    };
    context.printer.result(&document, || {
        format!(
            "{}\nthe private key is in {}\n",
            document.trusted_key,
            path.display()
        )
    })?;
    Ok(Exit::Done)
}
