//! What a deploy or a rollback did, as people and programs are told.

use std::fmt::Write as _;

use serde::Serialize;

use super::adoption::{Adoption, adopted_keys};
use crate::artifacts::Target;
use crate::environment::{Applied, PlanSummary};
use crate::oci::Sha256Digest;
use crate::ui::{bytes, count};

/// The common part of `--json` after a change.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    environment: String,
    /// What is live now.
    generation: u64,
    /// What was live before.
    previous: Option<u64>,
    /// The generation that `rollback` can name to undo this.
    #[serde(skip)]
    undo: Option<u64>,
    /// Whether anything was written.
    changed: bool,
    image: Option<Sha256Digest>,
    added: Vec<String>,
    replaced: Vec<String>,
    retired: Vec<String>,
    reused: usize,
    restored: usize,
    /// Workflows of which a file that leaves was given an end.
    draining: Vec<String>,
    /// Files of others that were deleted or replaced.
    cleared: Vec<String>,
    /// Files that BigFlow had left and that are recorded as a generation now.
    adopted: Vec<String>,
    /// Blobs that were sent to the registry, and their bytes.
    blobs_sent: usize,
    bytes_sent: u64,
}

impl Outcome {
    /// Gathers it.
    pub(super) fn new(target: &Target, applied: &Applied, summary: &PlanSummary) -> Self {
        let names = |workflows: &[crate::project::WorkflowId]| {
            workflows.iter().map(ToString::to_string).collect()
        };
        let sent = applied.push.as_ref().map(|push| push.uploaded.as_slice());
        let sent = sent.unwrap_or_default();
        Self {
            environment: target.environment.to_string(),
            generation: applied.generation,
            previous: applied.previous,
            undo: applied.undo,
            changed: applied.changed,
            image: applied.image,
            added: names(&summary.added),
            replaced: names(&summary.changed),
            retired: names(&summary.retired),
            reused: summary.reused.len(),
            restored: summary.restored.len(),
            draining: names(&summary.draining),
            cleared: summary.cleared.clone(),
            adopted: Vec::new(),
            blobs_sent: sent.len(),
            bytes_sent: sent.iter().map(|descriptor| descriptor.size).sum(),
        }
    }

    /// Adds what was adopted first.
    pub(super) fn adopted(mut self, adoption: Option<&Adoption>) -> Self {
        self.adopted = adopted_keys(adoption);
        self
    }

    /// A few lines for people; `remark` ends the first.
    pub(super) fn text(&self, remark: &str) -> String {
        let mut text = String::new();
        if let (false, Some(previous)) = (self.adopted.is_empty(), self.previous) {
            let _ = writeln!(
                text,
                "{}: {} of BigFlow's are recorded as generation {previous}",
                self.environment,
                count(self.adopted.len(), "DAG file")
            );
        }
        if !self.changed {
            let _ = writeln!(
                text,
                "{}: nothing to do, generation {} is live",
                self.environment, self.generation
            );
            return text;
        }
        let _ = writeln!(
            text,
            "{}: generation {} is live{remark}",
            self.environment, self.generation
        );
        if let Some(image) = &self.image {
            let sent = match self.blobs_sent {
                0 => "was there".to_owned(),
                blobs => format!("{} sent, {}", count(blobs, "blob"), bytes(self.bytes_sent)),
            };
            let _ = writeln!(text, "image {image} ({sent})");
        }
        let parts = [
            (self.added.len(), "added"),
            (self.replaced.len(), "replaced"),
            (self.retired.len(), "deleted"),
            (self.draining.len(), "draining until the next deploy"),
            (self.restored, "restored"),
            (self.reused.saturating_sub(self.restored), "unchanged"),
        ];
        let parts: Vec<_> = parts
            .iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| format!("{number} {what}"))
            .collect();
        if !parts.is_empty() {
            let _ = writeln!(text, "DAGs: {}", parts.join(", "));
        }
        if !self.cleared.is_empty() {
            let _ = writeln!(text, "cleared: {}", count(self.cleared.len(), "file"));
        }
        if let Some(before) = self.undo {
            let _ = writeln!(
                text,
                "to undo: forebay rollback {before} -c {}",
                self.environment
            );
        }
        text
    }
}
