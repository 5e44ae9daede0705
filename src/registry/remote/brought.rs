//! What was brought into the repository already: a blob that several images share is
//! brought once, also when those images are pushed at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::oci::Sha256Digest;
use crate::registry::{BlobOutcome, RegistryError};

/// The blobs that this client has brought, or is bringing right now.
#[derive(Default)]
pub(super) struct Brought {
    blobs: Mutex<HashMap<Sha256Digest, Arc<OnceCell<()>>>>,
}

impl Brought {
    /// Does `work`, unless it was done for this blob; waits for whoever is doing it. After a
    /// failure the next in line tries, with its own source of the bytes.
    pub(super) async fn once(
        &self,
        blob: Sha256Digest,
        work: impl Future<Output = Result<BlobOutcome, RegistryError>>,
    ) -> Result<BlobOutcome, RegistryError> {
        let cell = Arc::clone(self.lock().entry(blob).or_default());
        let mut outcome = BlobOutcome::Present;
        cell.get_or_try_init(|| async {
            outcome = work.await?;
            Ok::<(), RegistryError>(())
        })
        .await?;
        Ok(outcome)
    }

    /// What was believed of a blob is not true, or no longer.
    pub(super) fn forget(&self, blob: &Sha256Digest) {
        self.lock().remove(blob);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Sha256Digest, Arc<OnceCell<()>>>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
