//! Metadata of metric families that writers push: kept by family name, logged when it changes.
//!
//! What scraped targets say is their scrapers' and is not kept here. Bounds: families of a shard, bytes of a text.

use std::collections::BTreeMap;

use koios_model::metadata::MetricMetadata;

use super::Shard;
use crate::error::TsdbError;
use crate::head::HeadView;
use crate::types::Lsn;
use crate::wal::metadata;
use crate::wal::segment::put_frame;

/// Families of one shard; further ones are passed over.
pub(super) const FAMILIES_MAX: usize = 100_000;
/// Bytes of a name, a unit, a help text; what is longer is cut, a longer name is passed over.
const TEXT_MAX: usize = 4096;

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX)].to_owned()
}

impl Shard {
    /// Keeps what is said about families; the last word counts. Answers the log's position and how many changed.
    ///
    /// # Errors
    /// `TsdbError::Unavailable` when the log cannot take it now, `Poisoned`: nothing was kept.
    pub fn append_metadata(&mut self, said: &[(String, MetricMetadata)]) -> Result<(Lsn, usize), TsdbError> {
        self.prepare()?;
        let mut new: BTreeMap<&str, MetricMetadata> = BTreeMap::new();
        {
            let known = self.view.metadata.read();
            let mut room = FAMILIES_MAX.saturating_sub(known.len());
            for (name, m) in said.iter().filter(|(n, _)| !n.is_empty() && n.len() <= TEXT_MAX) {
                let m = MetricMetadata { kind: m.kind, help: cut(&m.help), unit: cut(&m.unit) };
                let is_new = !known.contains_key(name.as_str()) && !new.contains_key(name.as_str());
                if known.get(name.as_str()) == Some(&m) {
                    new.remove(name.as_str());
                } else if !is_new || room > 0 {
                    room -= usize::from(is_new);
                    new.insert(name, m);
                }
            }
        }
        if new.is_empty() {
            return Ok((self.wal.lsn(), 0));
        }
        self.frames.clear();
        put_frame(&mut self.frames, |out| metadata::put(out, new.iter().map(|(n, m)| (*n, m))));
        let lsn = self.wal.write(&self.frames)?;
        let changed = new.len();
        self.view.metadata.write().extend(new.into_iter().map(|(n, m)| (n.to_owned(), m)));
        Ok((lsn, changed))
    }
}

impl HeadView {
    /// Metadata that was pushed, by family name: of one family or of all.
    pub fn metadata(&self, family: Option<&str>) -> Vec<(String, MetricMetadata)> {
        let known = self.metadata.read();
        match family {
            Some(name) => {
                known.get_key_value(name).map(|(n, m)| (n.clone(), m.clone())).into_iter().collect()
            }
            None => known.iter().map(|(n, m)| (n.clone(), m.clone())).collect(),
        }
    }
}
