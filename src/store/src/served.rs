//! One opened block and what its external labels mean in an answer.
//!
//! Thanos keeps the labels of a block's producer in meta.json. Answers carry them, except the replica slot of Koios' own
//! blocks (which travels beside the labels) and except labels that this cluster gives to its own blocks, because a
//! Prometheus never shows its own external labels. Who speaks for the cluster to the world outside wants those too:
//! `Dress::Full`. Matchers on external labels are settled here.

use std::sync::Arc;

use koios_block::{Block, BlockError};
use koios_chunk::SeriesChunks;
use koios_model::{BlockId, Labels, LabelsBuilder, Matcher, Slot};

use crate::prepare::Walked;
use crate::sparse::Sparse;

/// Name of the external label that holds the slot of Koios' own blocks.
pub const REPLICA: &str = "replica";

/// Which external labels series carry in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dress {
    /// Those that this cluster does not give to its own data.
    #[default]
    Home,
    /// All.
    Full,
}

/// A block ready to answer.
#[derive(Debug)]
pub struct ServedBlock {
    block: Block,
    home: Labels,
    full: Labels,
    /// What is here of it, when it is not all.
    sparse: Option<Sparse>,
    walked: Walked,
}

impl ServedBlock {
    /// Wraps an opened block. `own` are the external labels of this cluster.
    pub fn new(block: Block, own: &Labels) -> Self {
        let labels = block.meta().external_labels();
        let slot = block.slot() != Slot::FOREIGN;
        let full = Labels::from_pairs(labels.iter().filter(|(n, _)| !(slot && *n == REPLICA)));
        let home = Labels::from_pairs(full.iter().filter(|(n, v)| own.get(n) != Some(v)));
        Self { block, home, full, sparse: None, walked: Walked::default() }
    }

    /// The same block, of which not everything is here.
    #[must_use]
    pub(crate) fn with_sparse(mut self, sparse: Option<Sparse>) -> Self {
        self.sparse = sparse;
        self
    }

    pub(crate) fn sparse(&self) -> Option<&Sparse> {
        self.sparse.as_ref()
    }

    pub(crate) fn walked(&self) -> &Walked {
        &self.walked
    }

    /// The block's id.
    pub fn id(&self) -> BlockId {
        self.block.meta().ulid
    }

    /// The block behind it.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The external labels of an answer.
    pub fn external(&self, dress: Dress) -> &Labels {
        match dress {
            Dress::Home => &self.home,
            Dress::Full => &self.full,
        }
    }

    /// Whether its series can be read where they lie: they get no labels that they do not have in the block, belong to
    /// no replicas of another producer, and are not downsampled.
    pub fn is_plain(&self) -> bool {
        self.home.is_empty() && self.block.slot() != Slot::FOREIGN && self.block.meta().resolution() == 0
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
        let Some(inner) = settle(&self.home, matchers) else { return Ok(Vec::new()) };
        let mut series = self.block.select(&inner, mint, maxt)?;
        if !self.home.is_empty() {
            for s in &mut series {
                s.labels = dressed(&self.home, std::mem::take(&mut s.labels));
            }
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        Ok(series)
    }

    /// Label names of matching series, external ones included.
    ///
    /// # Errors
    /// When the block is damaged.
    pub fn label_names(
        &self,
        matchers: &[Matcher],
        (mint, maxt): (i64, i64),
        dress: Dress,
    ) -> Result<Vec<String>, BlockError> {
        let external = self.external(dress);
        let Some(inner) = settle(external, matchers) else { return Ok(Vec::new()) };
        let mut names = self.block.label_names(&inner, mint, maxt)?;
        if !names.is_empty() {
            names.extend(external.iter().map(|(n, _)| n.to_owned()));
        }
        Ok(names)
    }

    /// Values of one label among matching series.
    ///
    /// # Errors
    /// When the block is damaged.
    pub fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        dress: Dress,
    ) -> Result<Vec<String>, BlockError> {
        let external = self.external(dress);
        let Some(inner) = settle(external, matchers) else { return Ok(Vec::new()) };
        match external.get(name) {
            Some(v) if self.block.has_series(&inner)? => Ok(vec![v.to_owned()]),
            Some(_) => Ok(Vec::new()),
            None => self.block.label_values(name, &inner),
        }
    }

    /// Matchers left for the block itself, as in an answer at home; `None` when an external label does not match.
    pub fn settle(&self, matchers: &[Matcher]) -> Option<Vec<Matcher>> {
        settle(&self.home, matchers)
    }
}

/// Matchers left for the data itself; `None` when an external label does not match.
pub fn settle(external: &Labels, matchers: &[Matcher]) -> Option<Vec<Matcher>> {
    let mut inner = Vec::with_capacity(matchers.len());
    for m in matchers {
        match external.get(&m.name) {
            Some(v) if m.matches(v) => {}
            Some(_) => return None,
            None => inner.push(m.clone()),
        }
    }
    Some(inner)
}

/// Labels of a series in an answer: external ones win.
pub fn dressed(external: &Labels, labels: Labels) -> Labels {
    if external.is_empty() {
        return labels;
    }
    let mut b = LabelsBuilder::from_labels(&labels);
    for (n, v) in external {
        b.set(n, v);
    }
    b.build()
}

/// Shared by readers.
pub type SharedBlock = Arc<ServedBlock>;
