//! `forebay store put`.

use std::path::Path;

use forebay_store::{RootName, Store};

use super::at;
use super::object::ObjectDocument;
use crate::cli::context::Context;
use crate::ui::{CommandError, Exit};

pub(super) fn put(
    context: &Context,
    store: &Store,
    file: &Path,
    root: Option<&RootName>,
) -> Result<(), CommandError> {
    let mut batch = store.begin()?;
    let info = if file == Path::new("-") {
        batch.put_reader(&mut std::io::stdin().lock())?
    } else {
        let mut opened = std::fs::File::open(at(context, file)).map_err(|error| {
            CommandError::new(Exit::Usage, format!("cannot read {}", file.display()))
                .why(error.to_string())
                .next("name a file that can be read")
        })?;
        batch.put_reader(&mut opened)?
    };
    if let Some(root) = root {
        batch.set_root(root, &[info.digest])?;
    }
    batch.commit()?;
    let document = ObjectDocument::from(info);
    context.printer.result(&document, || {
        format!("{}\n{}\n", document.digest, document.sha256)
    })
}
