//! Taking exemplars: by the rules of the ring, logged before they can be read.
//!
//! They come apart from samples, because nothing depends on the two being readable together. An exemplar belongs
//! to a series that is there: it never makes one.

use hashbrown::HashMap;
use koios_model::Exemplar;

use super::Shard;
use crate::error::TsdbError;
use crate::options::BATCH_ENTRIES_MAX;
use crate::types::{ExemplarEntry, ExemplarReject, ExemplarsAppended, SeriesKey};
use crate::wal::exemplars;
use crate::wal::segment::put_frame;

impl Shard {
    /// Appends exemplars. They are readable after this returns and durable once the syncer reports the answered
    /// position. Repetitions are passed over without a word.
    ///
    /// # Errors
    /// `TsdbError::Unavailable` when the log cannot take them now, `Poisoned`: none was taken. `BatchTooLarge`.
    pub fn append_exemplars(&mut self, entries: &[ExemplarEntry]) -> Result<ExemplarsAppended, TsdbError> {
        if entries.len() > BATCH_ENTRIES_MAX {
            return Err(TsdbError::BatchTooLarge(entries.len()));
        }
        self.prepare()?;
        let mut answer = ExemplarsAppended { lsn: self.wal.lsn(), ..ExemplarsAppended::default() };
        // The last of each series in this batch decides about the next one.
        let mut staged: Vec<(u64, u32, &Exemplar)> = Vec::new();
        let mut newest: HashMap<u64, &Exemplar> = HashMap::new();
        let mut out_of_order = 0;
        for (at, entry) in entries.iter().enumerate() {
            match self.check_exemplar(entry, &newest) {
                Ok(Some((id, ordinal))) => {
                    staged.push((id, ordinal, &entry.exemplar));
                    newest.insert(id, &entry.exemplar);
                }
                Ok(None) => {}
                Err(why) => {
                    out_of_order += u64::from(why == ExemplarReject::OutOfOrder);
                    answer.rejected.push((at, why));
                }
            }
        }
        if !staged.is_empty() {
            self.frames.clear();
            put_frame(&mut self.frames, |out| exemplars::put(out, staged.iter().map(|s| (s.0, s.2))));
            answer.lsn = self.wal.write(&self.frames)?;
        }
        answer.stored = staged.len() as u64;
        let index = self.view.index.read();
        let mut ring = self.view.exemplars.write();
        for (id, ordinal, exemplar) in staged {
            let series = &index.series[ordinal as usize];
            ring.push(id, exemplar.clone(), || (series.slot, index.labels(series)));
        }
        (0..out_of_order).for_each(|_| ring.note_out_of_order());
        Ok(answer)
    }

    /// Reference and ordinal of the series when the exemplar is to be stored.
    fn check_exemplar(
        &self,
        entry: &ExemplarEntry,
        newest: &HashMap<u64, &Exemplar>,
    ) -> Result<Option<(u64, u32)>, ExemplarReject> {
        let cell = match &entry.series {
            SeriesKey::Ref(r) => self.table.cell_of(r.0),
            SeriesKey::New(slot, labels) => self.find_labels(*slot, labels),
        };
        let hot = &self.table.hot[cell.ok_or(ExemplarReject::UnknownSeries)? as usize];
        let ring = self.view.exemplars.read();
        let taken = ring.check(hot.id, newest.get(&hot.id).copied(), &entry.exemplar)?;
        Ok(taken.then_some((hot.id, hot.ordinal)))
    }
}
