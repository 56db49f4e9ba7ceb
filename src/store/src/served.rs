//! One opened block and what its external labels mean in an answer.
//!
//! Thanos keeps the labels of a block's producer in meta.json. Answers carry them, except the replica slot
//! (which travels beside the labels) and except labels that this cluster gives to its own blocks, because a
//! Prometheus never shows its own external labels. Matchers on external labels are settled here.

use std::sync::Arc;

use koios_block::{Block, BlockError};
use koios_chunk::SeriesChunks;
use koios_model::{BlockId, Labels, LabelsBuilder, Matcher};

/// Name of the external label that holds the slot of Koios' own blocks.
pub const REPLICA: &str = "replica";

/// A block ready to answer.
#[derive(Debug)]
pub struct ServedBlock {
    block: Block,
    external: Labels,
}

impl ServedBlock {
    /// Wraps an opened block. `own` are the external labels of this cluster.
    pub fn new(block: Block, own: &Labels) -> Self {
        let labels = block.meta().thanos.as_ref().map(|t| t.labels.clone()).unwrap_or_default();
        let slot = labels.get(REPLICA).is_some_and(|v| v.parse::<u8>().is_ok());
        let external = Labels::from_pairs(
            labels.iter().filter(|(n, v)| !(slot && *n == REPLICA) && own.get(n) != Some(v.as_str())),
        );
        Self { block, external }
    }

    /// The block's id.
    pub fn id(&self) -> BlockId {
        self.block.meta().ulid
    }

    /// The block behind it.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Whether its series get labels in an answer that they do not have in the block.
    pub fn adds_labels(&self) -> bool {
        !self.external.is_empty()
    }

    /// Series and their chunks that overlap `[mint, maxt]`, in label order.
    ///
    /// # Errors
    /// When the block is damaged.
    pub fn select(
        &self,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
    ) -> Result<Vec<SeriesChunks>, BlockError> {
        let Some(inner) = self.settle(matchers) else { return Ok(Vec::new()) };
        let mut series = self.block.select(&inner, mint, maxt)?;
        if !self.external.is_empty() {
            for s in &mut series {
                s.labels = self.outer(std::mem::take(&mut s.labels));
            }
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        Ok(series)
    }

    /// Label names of matching series, external ones included.
    ///
    /// # Errors
    /// When the block is damaged.
    pub fn label_names(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<Vec<String>, BlockError> {
        let Some(inner) = self.settle(matchers) else { return Ok(Vec::new()) };
        let mut names = self.block.label_names(&inner, mint, maxt)?;
        if !names.is_empty() {
            names.extend(self.external.iter().map(|(n, _)| n.to_owned()));
        }
        Ok(names)
    }

    /// Values of one label among matching series.
    ///
    /// # Errors
    /// When the block is damaged.
    pub fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>, BlockError> {
        let Some(inner) = self.settle(matchers) else { return Ok(Vec::new()) };
        match self.external.get(name) {
            Some(v) if !self.block.series_labels(&inner)?.is_empty() => Ok(vec![v.to_owned()]),
            Some(_) => Ok(Vec::new()),
            None => self.block.label_values(name, &inner),
        }
    }

    /// Matchers left for the block itself; `None` when an external label does not match.
    pub fn settle(&self, matchers: &[Matcher]) -> Option<Vec<Matcher>> {
        let mut inner = Vec::with_capacity(matchers.len());
        for m in matchers {
            match self.external.get(&m.name) {
                Some(v) if m.matches(v) => {}
                Some(_) => return None,
                None => inner.push(m.clone()),
            }
        }
        Some(inner)
    }

    /// Labels of a series in an answer, from those in the block.
    pub fn outer(&self, labels: Labels) -> Labels {
        if self.external.is_empty() {
            return labels;
        }
        let mut b = LabelsBuilder::from_labels(&labels);
        for (n, v) in &self.external {
            b.set(n, v);
        }
        b.build()
    }
}

/// Shared by readers.
pub type SharedBlock = Arc<ServedBlock>;
