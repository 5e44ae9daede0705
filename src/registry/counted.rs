//! How far a blob has been read, for the progress display.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::oci::{BlobSource, Descriptor};

/// The furthest that any attempt has come: a second attempt is not progress
/// until it passes the first.
#[derive(Default)]
pub(super) struct Position {
    furthest: AtomicU64,
    moved: tokio::sync::Notify,
}

impl Position {
    /// Waits until some of the blob is read; how many bytes of it were.
    pub(super) async fn moved(&self) -> u64 {
        self.moved.notified().await;
        self.furthest.load(Ordering::Relaxed)
    }

    fn reached(&self, position: u64) {
        self.furthest.fetch_max(position, Ordering::Relaxed);
        self.moved.notify_one();
    }
}

/// The same blob, and how far it has been read.
pub(super) fn counted(blob: Arc<dyn BlobSource>) -> (Arc<dyn BlobSource>, Arc<Position>) {
    let position = Arc::<Position>::default();
    let counted = Counted {
        blob,
        position: Arc::clone(&position),
    };
    (Arc::new(counted), position)
}

struct Counted {
    blob: Arc<dyn BlobSource>,
    position: Arc<Position>,
}

struct CountingReader {
    reader: Box<dyn Read + Send>,
    done: u64,
    position: Arc<Position>,
}

impl BlobSource for Counted {
    fn descriptor(&self) -> &Descriptor {
        self.blob.descriptor()
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(CountingReader {
            reader: self.blob.open()?,
            done: 0,
            position: Arc::clone(&self.position),
        }))
    }
}

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.reader.read(buffer)?;
        self.done += amount as u64;
        self.position.reached(self.done);
        Ok(amount)
    }
}
