//! `forebay store cat`.

use std::io::Write;

use base64::Engine as _;
use forebay_store::Store;
use serde::Serialize;

use super::object::{ObjectArgument, ObjectDocument, find};
use crate::cli::context::Context;
use crate::ui::{CommandError, Exit};

#[derive(Debug, Serialize)]
struct CatDocument {
    #[serde(flatten)]
    object: ObjectDocument,
    base64: String,
}

pub(super) fn cat(
    context: &Context,
    store: &Store,
    object: &ObjectArgument,
) -> Result<(), CommandError> {
    let info = find(store, object)?;
    let mut reader = store.reader(&info.digest)?;
    if context.printer.is_json() {
        let bytes = store.read(&info.digest)?;
        let document = CatDocument {
            object: info.into(),
            base64: base64::engine::general_purpose::STANDARD.encode(bytes),
        };
        return context.printer.result(&document, String::new);
    }
    let mut output = std::io::stdout().lock();
    match std::io::copy(&mut reader, &mut output).and_then(|_| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CommandError::new(
            Exit::Failed,
            format!("cannot write object {}", info.digest),
        )
        .why(error.to_string())
        .next("check with `forebay store verify`")),
        _ => Ok(()),
    }
}
