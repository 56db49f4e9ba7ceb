//! The door through which decoded series come in, one by one or as a set that is read when it is looked at.

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

/// The series of one select by position. Nothing need exist of a series while nobody reads it.
pub trait SeriesSet: Send + Sync {
    /// Number of series.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether labels ascend with the position. Where they do not, the engine puts the positions in order.
    fn is_sorted(&self) -> bool;

    /// A reader for one thread. `labels` are the only ones that anybody will look at; `None` means all.
    fn reader<'a>(&'a self, labels: Option<&'a [String]>) -> Box<dyn SeriesReader + 'a>;
}

/// Reads series of a set, in any order.
pub trait SeriesReader {
    /// Labels of the series at a position: the wanted ones at least. All of them are unique within the set.
    ///
    /// # Errors
    /// A text saying what could not be read; it fails the query.
    fn labels(&mut self, at: usize) -> Result<Labels, String>;

    /// Appends the samples with `mint <= t <= maxt` of the series at a position to `out`, as `SeriesSource::read`, and
    /// gives its labels, any when there are no samples.
    ///
    /// # Errors
    /// As `labels`.
    fn read(&mut self, at: usize, mint: i64, maxt: i64, out: &mut Columns) -> Result<Labels, String>;
}

impl SeriesSet for Vec<Box<dyn SeriesSource>> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn is_sorted(&self) -> bool {
        self.is_sorted_by(|a, b| a.labels() <= b.labels())
    }

    fn reader<'a>(&'a self, _: Option<&'a [String]>) -> Box<dyn SeriesReader + 'a> {
        Box::new(self.as_slice())
    }
}

impl SeriesReader for &[Box<dyn SeriesSource>] {
    fn labels(&mut self, at: usize) -> Result<Labels, String> {
        Ok(self[at].labels().clone())
    }

    fn read(&mut self, at: usize, mint: i64, maxt: i64, out: &mut Columns) -> Result<Labels, String> {
        self[at].read(mint, maxt, out)?;
        Ok(self[at].labels().clone())
    }
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
