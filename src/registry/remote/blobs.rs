//! Blobs: asked for, and read as a stream that survives a broken connection.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderValue, RANGE};
use http::{Method, StatusCode};
use tokio::sync::mpsc;

use super::RemoteRegistry;
use super::body::download_channel;
use super::transport::{Call, Transport};
use crate::oci::{Descriptor, Sha256Digest};
use crate::registry::RegistryError;
use crate::registry::verified::VerifiedReader;

impl RemoteRegistry {
    pub(super) async fn head_blob(&self, digest: &Sha256Digest) -> Result<bool, RegistryError> {
        let call = self.call(Method::HEAD, self.url(&format!("blobs/{digest}")));
        let response = self.transport.send(&call).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err((self.transport)
                .problem(&call.method, &call.url, response)
                .await),
        }
    }

    pub(super) async fn get_blob(
        &self,
        descriptor: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, RegistryError> {
        let url = self.url(&format!("blobs/{}", descriptor.digest));
        let mut download = Download {
            transport: Arc::clone(&self.transport),
            call: self.call(Method::GET, url),
            received: 0,
        };
        let response = download.request().await?;
        let (sender, reader) = download_channel();
        tokio::spawn(async move {
            if let Err(error) = download.run(response, &sender).await {
                // Fails only if nobody reads any more.
                let _ = sender.send(Err(io::Error::other(error))).await;
            }
        });
        Ok(Box::new(VerifiedReader::new(reader, descriptor)))
    }
}

struct Download {
    transport: Arc<Transport>,
    call: Call,
    received: u64,
}

impl Download {
    /// Asks for the bytes from `received` on.
    async fn request(&mut self) -> Result<reqwest::Response, RegistryError> {
        if self.received > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", self.received))
        {
            self.call.headers.insert(RANGE, range);
        }
        let response = self.transport.send(&self.call).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            _ => Err((self.transport)
                .problem(&self.call.method, &self.call.url, response)
                .await),
        }
    }

    async fn run(
        &mut self,
        mut response: reqwest::Response,
        sender: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), RegistryError> {
        let mut failures = 0;
        loop {
            // A server that ignores the range starts again from the first byte.
            let mut skip = match response.status() {
                StatusCode::PARTIAL_CONTENT => 0,
                _ => self.received,
            };
            let broken = loop {
                match response.chunk().await {
                    Ok(Some(mut chunk)) => {
                        let known = skip.min(chunk.len() as u64);
                        skip -= known;
                        let fresh = chunk.split_off(known as usize);
                        self.received += fresh.len() as u64;
                        if sender.send(Ok(fresh)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => break error,
                }
            };
            failures += 1;
            self.transport
                .pause_or_fail(failures, broken.into())
                .await?;
            response = self.request().await?;
        }
    }
}
