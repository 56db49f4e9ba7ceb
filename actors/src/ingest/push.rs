//! Pushed data into this node's own shards.
//!
//! Implements the port of remote write over the `Distributor` alone; copies on other nodes are the business of an
//! implementation above this one. Pushed series have slot 0: what distinguishes replicas of a sender is in its labels.
//! A batch is written in pieces, so that no shard is busy with one request for long. Exemplars and metadata follow the
//! samples and never fail them.

use std::sync::Arc;
use std::time::Duration;

use koios_model::Slot;
use koios_remote::{PushBatch, PushError, PushOutcome, PushPort, PushValue, Reason};
use koios_tsdb::{Reject, Value};

use super::distributor::{Distributor, Home, Write, WriteExemplar};
use super::error::IngestError;
use crate::kit::AskError;

/// Slot of everything that is pushed.
pub const PUSH_SLOT: Slot = Slot(0);
/// Most samples written at a time.
const PIECE: usize = 1 << 14;
/// How long a sender waits when a shard has too much to do.
const BUSY: Duration = Duration::from_secs(1);
/// How long a sender waits for what takes its time: a restart, a disk without room.
const DOWN: Duration = Duration::from_secs(5);

/// The port of one node.
#[derive(Clone)]
pub struct LocalPush {
    distributor: Distributor,
}

impl LocalPush {
    /// Over this node's shards.
    pub fn new(distributor: Distributor) -> Self {
        Self { distributor }
    }

    async fn exemplars(&self, batch: &PushBatch) -> u32 {
        let writes = batch.exemplars.iter().filter_map(|e| {
            let series = batch.series.get(e.series as usize)?;
            Some(WriteExemplar {
                series: Err((PUSH_SLOT, series.labels.clone())),
                exemplar: e.exemplar.clone(),
            })
        });
        let writes: Vec<_> = writes.collect();
        let all = writes.len();
        match self.distributor.write_exemplars(writes, Home::Series).await {
            Ok(written) => written.rejected.len() as u32,
            Err(e) => {
                tracing::debug!(error = %e, "pushed exemplars not stored");
                all as u32
            }
        }
    }
}

#[async_trait::async_trait]
impl PushPort for LocalPush {
    async fn push(&self, batch: Arc<PushBatch>) -> Result<PushOutcome, PushError> {
        let mut outcome = PushOutcome::default();
        let mut writes = Vec::with_capacity(batch.samples.len().min(PIECE));
        let mut first = 0;
        for series in &batch.series {
            for number in series.samples.clone() {
                let sample = &batch.samples[number as usize];
                let key = Err((PUSH_SLOT, series.labels.clone()));
                writes.push(Write { series: key, t: sample.t, v: value(&sample.v) });
                if writes.len() == PIECE {
                    self.piece(std::mem::take(&mut writes), first, &mut outcome).await?;
                    first = number + 1;
                }
            }
        }
        self.piece(writes, first, &mut outcome).await?;
        if !batch.exemplars.is_empty() {
            outcome.exemplars_rejected = self.exemplars(&batch).await;
        }
        if !batch.metadata.is_empty()
            && let Err(e) = self.distributor.write_metadata(batch.metadata.clone()).await
        {
            tracing::debug!(error = %e, "pushed metadata not stored");
        }
        Ok(outcome)
    }
}

impl LocalPush {
    /// Writes samples from number `first` on.
    async fn piece(
        &self,
        writes: Vec<Write>,
        first: u32,
        outcome: &mut PushOutcome,
    ) -> Result<(), PushError> {
        if writes.is_empty() {
            return Ok(());
        }
        let mut written = self.distributor.write(writes, Home::Series).await.map_err(retryable)?;
        written.rejected.sort_unstable_by_key(|(at, _)| *at);
        outcome
            .rejected
            .extend(written.rejected.into_iter().map(|(at, why)| (first + at as u32, reason(why))));
        Ok(())
    }
}

fn value(v: &PushValue) -> Value {
    match v {
        PushValue::Float(v) => Value::Float(*v),
        PushValue::Histogram(h) => Value::Histogram(h.clone()),
        PushValue::FloatHistogram(h) => Value::FloatHistogram(h.clone()),
    }
}

/// What the head's refusal is called in remote write.
pub fn reason(reject: Reject) -> Reason {
    match reject {
        Reject::OutOfOrder => Reason::OutOfOrder,
        Reject::Duplicate => Reason::Duplicate,
        Reject::TooOld => Reason::TooOld,
        Reject::TooFarInFuture => Reason::TooFarInFuture,
        Reject::BadHistogram => Reason::BadHistogram,
        Reject::SeriesLimit => Reason::SeriesLimit,
        // Series are named by their labels here.
        Reject::UnknownRef => Reason::OutOfBounds,
    }
}

/// Nothing that keeps a shard from writing is the sender's fault.
pub fn retryable(e: IngestError) -> PushError {
    let retry_after = match &e {
        IngestError::Ask(AskError::Overloaded { .. } | AskError::Late { .. }) | IngestError::Draining => BUSY,
        IngestError::Ask(AskError::Down { .. }) | IngestError::Storage(_) => DOWN,
    };
    PushError::Unavailable { why: e.to_string(), retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_node_is_always_worth_another_try() {
        for e in [
            IngestError::Draining,
            IngestError::Storage("disk full".to_owned()),
            IngestError::Ask(AskError::Overloaded { actor: "shard", bound: 128 }),
            IngestError::Ask(AskError::Down { actor: "shard" }),
        ] {
            let words = e.to_string();
            let PushError::Unavailable { why, retry_after } = retryable(e) else { panic!("{words}") };
            assert!(why == words && retry_after >= BUSY);
        }
    }
}
