//! The way out of splicing: layers compressed anew, by one encoder, into objects of the store.

use std::io::{self, Write as _};

use flate2::read::MultiGzDecoder;
use flate2::{Compression, GzBuilder};
use forebay_store::{Recipe, Store};

use super::ImageError;
use super::file_layer::ENCODER;
use super::layer::{self, Layer, LayerSource};
use super::splice;

/// Changes whenever the same layer would give other bytes.
const RECIPE_VERSION: u32 = 1;

/// `layer` as one gzip member, if it was spliced; what is inside stays the same.
///
/// # Errors
/// A wheel or recipe that is not in the store, or a failure to write.
pub(super) fn recompress(layer: Layer, store: &Store) -> Result<Layer, ImageError> {
    let LayerSource::Spliced(recipe) = layer.source else {
        return Ok(layer);
    };
    let inputs = (layer.descriptor.digest, ENCODER);
    let key = Recipe::new("recompressed-layer", RECIPE_VERSION, &inputs)?.key();
    if let Some(known) = layer::realised(store, &key)? {
        return Ok(known);
    }
    let failed = || {
        ImageError::io(format!(
            "cannot compress the layer of `{}`",
            layer.created_by
        ))
    };
    let mut archive = MultiGzDecoder::new(splice::open(store, &recipe).map_err(failed())?);
    let spool = tempfile::tempfile().map_err(failed())?;
    let mut encoder = GzBuilder::new()
        .operating_system(255)
        .write(io::BufWriter::new(spool), Compression::new(6));
    io::copy(&mut archive, &mut encoder).map_err(failed())?;
    let mut spool = encoder
        .finish()
        .and_then(|writer| writer.into_inner().map_err(io::IntoInnerError::into_error))
        .map_err(failed())?;
    spool
        .flush()
        .and_then(|()| io::Seek::rewind(&mut spool))
        .map_err(failed())?;
    let mut batch = store.begin()?;
    let info = batch.put_reader(&mut spool)?;
    let compressed = layer::object_layer(&info, layer.diff_id, &layer.created_by);
    layer::realise(
        &mut batch,
        &key,
        &compressed,
        [("blob".to_owned(), info.digest)],
    )?;
    batch.commit()?;
    Ok(compressed)
}
