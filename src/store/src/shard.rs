//! Some of the series, as Thanos tells shards apart.
//!
//! Pure. The hash is over the labels that count, in their order, after replica labels are gone, so all replicas of a series are
//! in one shard.

use koios_model::Labels;

/// Those series whose hash leaves `index` when divided by `count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesShard {
    /// Less than `count`.
    pub index: u64,
    /// At least 1.
    pub count: u64,
    /// Whether only `labels` count, else all but those.
    pub by: bool,
    /// Label names.
    pub labels: Vec<String>,
}

impl SeriesShard {
    /// Whether a series is in it.
    pub fn holds(&self, labels: &Labels) -> bool {
        let mut bytes = Vec::with_capacity(256);
        for (n, v) in labels.iter().filter(|(n, _)| self.labels.iter().any(|l| l == n) == self.by) {
            for text in [n, v] {
                bytes.extend_from_slice(text.as_bytes());
                bytes.push(0xff);
            }
        }
        xxhash_rust::xxh64::xxh64(&bytes, 0) % self.count.max(1) == self.index
    }
}
