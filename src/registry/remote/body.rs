//! Bridges between blocking readers and the network: a few chunks in memory,
//! whatever the blob's size.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

use crate::oci::BlobSource;
use crate::registry::verified::{Verifier, read_some};

const CHUNK: usize = 128 << 10;
/// How many chunks wait between the two sides.
const CHUNKS_IN_FLIGHT: usize = 4;

/// How the sending of a blob stands.
#[derive(Default)]
pub(super) struct Sending {
    taken: AtomicU64,
    source_failure: OnceLock<io::Error>,
}

impl Sending {
    /// How many bytes the connection has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Why the blob's source could not give the promised bytes.
    pub(super) fn source_failure(&self) -> Option<&io::Error> {
        self.source_failure.get()
    }
}

/// A request body of the blob's bytes, read on a thread of its own.
///
/// The last chunk is handed on only if digest and size are right; otherwise
/// the body breaks off, so that a registry never gets a whole wrong blob.
pub(super) fn upload_body(blob: Arc<dyn BlobSource>) -> (reqwest::Body, Arc<Sending>) {
    let sending = Arc::new(Sending::default());
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(CHUNKS_IN_FLIGHT);
    let state = Arc::clone(&sending);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = pump(&*blob, &sender) {
            let _ = state.source_failure.set(error);
            let broken = io::Error::other("the blob's source failed");
            // Fails only if the request is over anyway.
            let _ = sender.blocking_send(Err(broken));
        }
    });
    let state = Arc::clone(&sending);
    let stream = futures_util::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|chunk| {
            if let Some(Ok(bytes)) = &chunk {
                state.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            chunk
        })
    });
    (reqwest::Body::wrap_stream(stream), sending)
}

fn pump(blob: &dyn BlobSource, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut reader = blob.open()?;
    let mut verifier = Verifier::new(blob.descriptor());
    let mut held: Option<Bytes> = None;
    loop {
        let mut buffer = vec![0; CHUNK];
        let amount = read_some(&mut reader, &mut buffer)?;
        let next = if amount == 0 {
            verifier.finish()?;
            None
        } else {
            buffer.truncate(amount);
            verifier.update(&buffer)?;
            Some(Bytes::from(buffer))
        };
        let is_last = next.is_none();
        if let Some(chunk) = std::mem::replace(&mut held, next)
            && sender.blocking_send(Ok(chunk)).is_err()
        {
            return Ok(());
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Makes the reader for chunks that a task receives.
pub(super) fn download_channel() -> (mpsc::Sender<io::Result<Bytes>>, ChunkReader) {
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let reader = ChunkReader {
        receiver,
        chunk: Bytes::new(),
    };
    (sender, reader)
}

/// Reads what arrives. Blocks; never to be used on an async thread.
pub(super) struct ChunkReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let amount = self.chunk.len().min(buffer.len());
        let (target, _) = buffer.split_at_mut(amount);
        self.chunk.copy_to_slice(target);
        Ok(amount)
    }
}
