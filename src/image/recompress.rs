//! The way out of splicing: layers compressed anew, by one encoder, into objects of the store.

use std::io::{self, BufWriter, Read, Write};

use flate2::{Compression, GzBuilder};
use forebay_store::{Recipe, Store};

use super::ImageError;
use super::decompress::decompressed;
use super::file_layer::ENCODER;
use super::layer::{self, Layer, LayerSource};
use super::splice;
use crate::oci::{Descriptor, MediaType};
use crate::project::CompressionSetting;

/// Changes whenever the same layer would give other bytes.
const RECIPE_VERSION: u32 = 1;
/// zstd's own usual level.
const ZSTD_LEVEL: i32 = 3;
/// The encoder whose bytes such layers are: library, level, and no worker threads, since with
/// them it cuts its input differently.
const ZSTD_ENCODER: &str = "libzstd 1.5.7 level 3 without workers";

/// `layer` as one stream of the wanted kind, if it is not that already; what is inside stays the
/// same. Layers that are not in the store stay what they are.
///
/// # Errors
/// A wheel or recipe that is not in the store, or a failure to write.
pub(super) fn recompress(
    layer: Layer,
    compression: CompressionSetting,
    store: &Store,
) -> Result<Layer, ImageError> {
    let media_type = match (compression, layer.source) {
        (CompressionSetting::Splice, _)
        | (_, LayerSource::Base | LayerSource::Published)
        | (CompressionSetting::Gzip, LayerSource::Object(_)) => return Ok(layer),
        (CompressionSetting::Gzip, LayerSource::Spliced(_)) => MediaType::OCI_LAYER_GZIP,
        (CompressionSetting::Zstd, _) => MediaType::OCI_LAYER_ZSTD,
    };
    if layer.descriptor.media_type.as_str() == MediaType::OCI_LAYER_ZSTD {
        return Ok(layer);
    }
    let is_zstd = media_type == MediaType::OCI_LAYER_ZSTD;
    let encoder = if is_zstd { ZSTD_ENCODER } else { ENCODER };
    let inputs = (layer.descriptor.digest, encoder);
    let key = Recipe::new("recompressed-layer", RECIPE_VERSION, &inputs)?.key();
    if let Some(known) = layer::realised(store, &key)? {
        return Ok(Layer {
            created_by: layer.created_by,
            ..known
        });
    }
    let failed = || {
        ImageError::io(format!(
            "cannot compress the layer of `{}`",
            layer.created_by
        ))
    };
    let mut archive: Box<dyn Read> = match layer.source {
        LayerSource::Object(object) => decompressed(store.reader(&object)?).map_err(failed())?,
        LayerSource::Spliced(recipe) => {
            let spliced = splice::open(store, &recipe).map_err(failed())?;
            decompressed(spliced).map_err(failed())?
        }
        LayerSource::Base | LayerSource::Published => return Ok(layer),
    };
    let spool = BufWriter::new(tempfile::tempfile().map_err(failed())?);
    let spool = match is_zstd {
        true => zstd_stream(&mut archive, spool),
        false => gzip_stream(&mut archive, spool),
    };
    let mut spool = spool
        .and_then(|spool| spool.into_inner().map_err(io::IntoInnerError::into_error))
        .and_then(|mut file| io::Seek::rewind(&mut file).map(|()| file))
        .map_err(failed())?;
    let mut batch = store.begin()?;
    let info = batch.put_reader(&mut spool)?;
    let gzip = layer::object_layer(&info, layer.diff_id, &layer.created_by);
    let compressed = Layer {
        descriptor: Descriptor {
            media_type: MediaType::new(media_type),
            ..gzip.descriptor
        },
        ..gzip
    };
    let outputs = [("blob".to_owned(), info.digest)];
    layer::realise(&mut batch, &key, &compressed, outputs)?;
    batch.commit()?;
    Ok(compressed)
}

fn gzip_stream<W: Write>(archive: &mut dyn Read, out: W) -> io::Result<W> {
    let mut encoder = GzBuilder::new()
        .operating_system(255)
        .write(out, Compression::new(6));
    io::copy(archive, &mut encoder)?;
    encoder.finish()
}

fn zstd_stream<W: Write>(archive: &mut dyn Read, out: W) -> io::Result<W> {
    let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
    io::copy(archive, &mut encoder)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_name_the_encoder_that_is_built_in() {
        let version = zstd::zstd_safe::version_string();
        let expected = format!("libzstd {version} level {ZSTD_LEVEL} without workers");
        assert_eq!(ZSTD_ENCODER, expected);
    }
}
