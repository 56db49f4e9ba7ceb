//! The door through which decoded series come in.

use koios_model::{Columns, Labels};

/// One series as storage, a peer or a test provides it.
pub trait SeriesSource: Send + Sync {
    /// The identity; unique within one select.
    fn labels(&self) -> &Labels;

    /// Appends the samples with `mint <= t <= maxt` to `out`, ascending in time, stale markers included.
    ///
    /// # Errors
    /// A text saying what could not be read; it fails the query.
    fn read(&self, mint: i64, maxt: i64, out: &mut Columns) -> Result<(), String>;
}

/// A series held in memory.
#[derive(Clone, Debug)]
pub struct MemorySeries {
    /// Identity.
    pub labels: Labels,
    /// All samples.
    pub columns: Columns,
}

impl SeriesSource for MemorySeries {
    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn read(&self, mint: i64, maxt: i64, out: &mut Columns) -> Result<(), String> {
        let times = &self.columns.times;
        let from = times.partition_point(|t| *t < mint);
        let to = times.partition_point(|t| *t <= maxt);
        if self.columns.histograms.is_none() && self.columns.starts.is_none() && out.is_empty() {
            out.clear();
            out.times.extend_from_slice(&times[from..to.max(from)]);
            out.values.extend_from_slice(&self.columns.values[from..to.max(from)]);
            return Ok(());
        }
        for (i, &t) in times.iter().enumerate().take(to).skip(from) {
            match self.columns.histogram(i) {
                Some(h) => out.push_histogram(t, h.clone()),
                None => out.push(t, self.columns.values[i]),
            }
            out.set_start(self.columns.start(i));
        }
        Ok(())
    }
}

impl<T: SeriesSource + ?Sized> SeriesSource for std::sync::Arc<T> {
    fn labels(&self) -> &Labels {
        (**self).labels()
    }

    fn read(&self, mint: i64, maxt: i64, out: &mut Columns) -> Result<(), String> {
        (**self).read(mint, maxt, out)
    }
}
