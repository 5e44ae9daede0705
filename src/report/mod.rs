//! An environment as a picture: one page of HTML that needs nothing else, for looking at what was
//! live when, what is in it, and what has changed.
//!
//! Pure: a [`Survey`](crate::environment::Survey) in, a [`Report`] and its page out; the same records
//! give the same bytes. What people have named is text in the page and nothing else: every name goes
//! through [`html::text`], the data for the script is JSON without `<`, and a policy in the page lets
//! only its own style and script run, and nothing be loaded. Without a script the page shows
//! everything but comparisons of any two generations.

mod data;
mod drawing;
mod html;
mod image;
mod layout;
mod lines;
mod model;
mod page;
mod panel;
mod words;

pub use model::{
    Applying, Change, Generation, Image, ImageState, KindOfLayer, Layer, Package, Report,
    SharedLayers, Since, Workflow,
};

use std::io::{self, Write};

/// Writes the page.
///
/// # Errors
/// Those of `output`.
pub fn write_html(report: &Report, output: &mut dyn Write) -> io::Result<()> {
    page::write(report, output)
}
