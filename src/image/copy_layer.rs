//! The layers of COPY and WORKDIR lines.

use std::collections::BTreeMap;

use forebay_store::{Recipe, RecipeKey, Store, TreeEntryKind};
use serde::Serialize;

use super::ImageError;
use super::context::BuildContext;
use super::file_layer::{self, ENCODER, FileContent};
use super::layer::{self, Layer};
use super::members::LastLayer;
use super::plan::CopiedFile;
use super::tar::{FileTree, Node};

/// Changes whenever the same files would give other bytes.
const RECIPE_VERSION: u32 = 2;

#[derive(Serialize)]
struct Inputs<'a> {
    encoder: &'a str,
    /// Path in the image, and digest or link target.
    files: Vec<(&'a str, String)>,
}

/// The layer with `files`, from the store if it was made before.
///
/// # Errors
/// A file that changed since the scan, or that would be there twice.
pub(super) fn build(
    files: &[CopiedFile],
    created_by: &str,
    context: &BuildContext<'_>,
    store: &Store,
) -> Result<Layer, ImageError> {
    let mut tree = FileTree::default();
    let mut inputs = Vec::new();
    for file in files {
        let entry = context.tree.get(&file.from);
        let node = match entry.map(|entry| &entry.kind) {
            // Docker keeps links as they are.
            Some(TreeEntryKind::Symlink { target }) => {
                inputs.push((file.to.as_str(), format!("link {target}")));
                Node::Symlink {
                    target: target.clone(),
                }
            }
            _ => {
                let source = context.file(&file.from)?;
                let kind = if source.executable { "program" } else { "file" };
                inputs.push((file.to.as_str(), format!("{kind} {}", source.digest)));
                Node::File {
                    size: source.size,
                    executable: source.executable,
                    content: FileContent::Context(source),
                }
            }
        };
        tree.insert(file.to.clone(), node)?;
    }
    let inputs = Inputs {
        encoder: ENCODER,
        files: inputs,
    };
    let key = Recipe::new("copy-layer", RECIPE_VERSION, &inputs)?.key();
    if let Some(layer) = layer::realised(store, &key)? {
        // The same files may have been brought by another line.
        return Ok(Layer {
            created_by: created_by.to_owned(),
            ..layer
        });
    }
    let last = LastLayer::find(store, &("copy-layer", created_by))?;
    keep(&tree, created_by, context, &last, store, &key)
}

/// The layer with one directory; `None` if every base has it.
///
/// # Errors
/// The store.
pub(super) fn directory(
    path: &str,
    created_by: &str,
    context: &BuildContext<'_>,
    store: &Store,
) -> Result<Option<Layer>, ImageError> {
    let mut tree = FileTree::default();
    tree.insert_directory(path)?;
    if tree.iter().next().is_none() {
        return Ok(None);
    }
    let inputs = (ENCODER, path);
    let key = Recipe::new("directory-layer", RECIPE_VERSION, &inputs)?.key();
    if let Some(layer) = layer::realised(store, &key)? {
        // Another line may have made the same directory.
        return Ok(Some(Layer {
            created_by: created_by.to_owned(),
            ..layer
        }));
    }
    keep(&tree, created_by, context, &LastLayer::none(), store, &key).map(Some)
}

/// Writes the layer's object, then the realisation that names it.
fn keep(
    tree: &FileTree<FileContent>,
    created_by: &str,
    context: &BuildContext<'_>,
    last: &LastLayer,
    store: &Store,
    key: &RecipeKey,
) -> Result<Layer, ImageError> {
    let mut batch = store.begin()?;
    let (info, diff_id) = file_layer::write(tree, context, last, BTreeMap::new(), &mut batch)?;
    let layer = layer::object_layer(&info, diff_id, created_by);
    layer::realise(&mut batch, key, &layer, [("blob".to_owned(), info.digest)])?;
    batch.commit()?;
    Ok(layer)
}
