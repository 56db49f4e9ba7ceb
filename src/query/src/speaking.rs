//! What the cluster says to those who speak Thanos' protocols: its series unmerged, with all external labels.
//!
//! Owns how a front is a `ClusterSource`, and the list of producers: those of the blocks that count, and the cluster's own, one a
//! slot. Refuses messages, which are the store crate's.

use std::collections::BTreeMap;

use async_trait::async_trait;
use koios_chunk::SeriesChunks;
use koios_model::{Labels, Slot};
use koios_store::Dress;
use koios_store::storeapi::{ClusterSource, SeriesAsk, Stream, Told, shown};
use tonic::Status;

use crate::completeness::Gap;
use crate::endpoints::Outside;
use crate::error::QueryError;
use crate::front::Front;
use crate::rounds::Want;
use crate::scope::Form;
use crate::server::status;

/// A front that speaks for its cluster.
pub struct Speaker {
    /// Who asks the cluster.
    pub front: std::sync::Arc<Front>,
    /// External labels of the cluster's own data, without the slot.
    pub own: Labels,
    /// Slots that own data may have.
    pub slots: u8,
}

impl Speaker {
    fn want(&self, ask: SeriesAsk) -> Want {
        let limits = self.front.limits();
        Want {
            query_id: "storeapi".to_owned(),
            mint: ask.mint,
            maxt: ask.maxt,
            matchers: ask.matchers,
            series_max: limits.engine.series_max,
            bytes_max: limits.fetch_bytes_max,
            samples_max: limits.fetch_samples_max,
            patience: std::time::Duration::from_millis(limits.timeout_ms),
            max_resolution_ms: ask.max_resolution_ms,
            dress: Dress::Full,
            outside: Outside { via: ask.via, ..Outside::default() },
            ..Want::default()
        }
    }
}

fn told<T>(answer: Result<(Vec<T>, Vec<Gap>), QueryError>) -> Result<Told<T>, Status> {
    let (found, gaps) = answer.map_err(|e| status(&e))?;
    Ok(Told { found, warnings: gaps.iter().map(Gap::to_warning).collect() })
}

#[async_trait]
impl ClusterSource for Speaker {
    async fn series(&self, ask: SeriesAsk) -> Result<Told<SeriesChunks>, Status> {
        let form = if ask.labels_only { Form::Labels } else { Form::Chunks };
        told(self.front.raw_series(&self.want(ask), form).await)
    }

    async fn words(&self, ask: SeriesAsk, name: &str) -> Result<Told<String>, Status> {
        // Of what retention left, any will do.
        let want = Want { max_resolution_ms: i64::MAX, ..self.want(ask) };
        told(self.front.raw_words(&want, name).await)
    }

    fn streams(&self) -> Vec<Stream> {
        let catalogue = self.front.coordinator().parts.catalogue.load_full();
        let mut streams: BTreeMap<Labels, (i64, i64)> = BTreeMap::new();
        let mut add = |labels: Labels, (mint, maxt): (i64, i64)| {
            let range = streams.entry(labels).or_insert((mint, maxt));
            *range = (range.0.min(mint), range.1.max(maxt));
        };
        for meta in catalogue.counting() {
            let labels = Labels::from_pairs(meta.external_labels());
            add(labels, (meta.min_time, meta.max_time.saturating_sub(1)));
        }
        let view = self.front.view();
        let held = view.members.values().filter_map(|m| m.record.head.min_time).min();
        if let Some(mint) = held {
            (0..self.slots).for_each(|n| add(shown(self.own.clone(), Slot(n)), (mint, i64::MAX)));
        }
        for endpoint in self.front.coordinator().federation.view().values() {
            let info = endpoint.info.iter().filter(|i| i.has_store);
            info.for_each(|i| i.label_sets.iter().for_each(|set| add(set.clone(), (i.mint, i.maxt))));
        }
        streams.into_iter().map(|(labels, (mint, maxt))| Stream { labels, mint, maxt }).collect()
    }
}
