//! Where a deploy goes: what is live there, and what becomes of it first.

use std::cell::OnceCell;
use std::sync::Arc;

use super::adoption::{Adoption, adopt};
use super::arguments::ReplacingArguments;
use super::caching::Caching;
use crate::dags::LiveStarts;
use crate::environment::{Environment, GenerationRecord, Live};
use crate::oci::Sha256Digest;
use crate::ui::CommandError;

/// How a deploy is prepared.
#[derive(Default)]
pub(super) struct Preparation {
    /// End what another deploy has left unfinished, which writes.
    pub(super) settle: bool,
    /// When workflows start that a plan has a time for.
    pub(super) starts: LiveStarts,
    /// What becomes of the DAG files that are there.
    pub(super) replacing: ReplacingArguments,
    /// Whether somebody is there to answer questions.
    pub(super) can_ask: bool,
    /// Where others have built.
    pub(super) caching: Arc<Caching>,
}

/// Where it goes.
pub(super) struct Place {
    pub(super) environment: Environment,
    preparation: Preparation,
    adoption: OnceCell<Adoption>,
}

impl Place {
    /// The environment, of which nothing is known yet.
    pub(super) fn new(environment: Environment, preparation: Preparation) -> Self {
        Self {
            environment,
            preparation,
            adoption: OnceCell::new(),
        }
    }

    /// The environment, and what BigFlow had left in it.
    pub(super) fn into_parts(self) -> (Environment, Option<Adoption>) {
        (self.environment, self.adoption.into_inner())
    }

    /// The live start times, and over them those of a plan.
    pub(super) fn starts(&self, live: &Live) -> LiveStarts {
        self.starts_of(live.record())
    }

    /// The same, if nobody else has deployed since this machine has.
    pub(super) async fn expected_starts(&self) -> LiveStarts {
        let record = self.environment.last_seen().await.ok().flatten();
        self.starts_of(record.as_deref())
    }

    fn starts_of(&self, record: Option<&GenerationRecord>) -> LiveStarts {
        let record = record.map(GenerationRecord::starts);
        let mut starts = record.unwrap_or_default();
        let planned = &self.preparation.starts.workflows;
        starts
            .workflows
            .extend(planned.iter().map(|(id, start)| (id.clone(), *start)));
        starts
    }

    /// What is live; what another has left unfinished is ended first, if that is wanted.
    pub(super) async fn observe(&self, image: &Sha256Digest) -> Result<Live, CommandError> {
        let live = self.environment.observe(Some(image)).await?;
        Ok(match self.preparation.settle {
            true => self.environment.settle(live).await?.0,
            false => live,
        })
    }

    /// What is live, or will be once BigFlow's files are adopted.
    pub(super) async fn observe_and_adopt(
        &self,
        image: &Sha256Digest,
    ) -> Result<Live, CommandError> {
        let live = self.observe(image).await?;
        let Preparation {
            settle,
            replacing,
            can_ask,
            ..
        } = &self.preparation;
        let (live, adoption) = adopt(&self.environment, live, replacing, *settle, *can_ask).await?;
        if let Some(adoption) = adoption {
            let _ = self.adoption.set(adoption);
        }
        Ok(live)
    }
}
