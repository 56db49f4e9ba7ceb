//! Putting a batch together, series by series, for both versions.
//!
//! Owns what happens to a series once its parts are found: labels first, because only with them can anything be said
//! about its samples; then floats, histograms and exemplars. A series that cannot be stored takes its samples with it.
//! Decoding goes on after a bad series and ends at broken protobuf, which spoils the request.

use std::collections::HashSet;

use koios_model::Exemplar;
use koios_model::exemplar::EXEMPLAR_CHARS_MAX;
use koios_model::metadata::{MetricKind, MetricMetadata};

use crate::batch::{PushBatch, PushExemplar, PushSample, PushSeries, PushValue};
use crate::faults::{Faults, Reason, shown};
use crate::histogram::{self, Read};
use crate::labels::{LabelFault, LabelReader};
use crate::limits::Limits;
use crate::wire::{Broken, Fields};

/// Bytes per character of UTF-8.
const UTF8_MAX: usize = 4;

/// Why a request comes to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Its bytes are no message of this kind.
    #[error(
        "broken protobuf in series or metadata number {at}: {why}; fix: check that the body is the message that Content-Type names"
    )]
    Broken {
        /// Which field of the request, from 0.
        at: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// It asks for more than a request may.
    #[error("the request has more than {max} {what}; fix: send fewer series per request")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
}

/// What a request decodes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// What is fit to be stored.
    pub batch: PushBatch,
    /// What was refused, with an error to the sender.
    pub faults: Faults,
    /// Float samples that were sent, refused and dropped ones included.
    pub floats: u64,
    /// Native histograms that were sent.
    pub histograms: u64,
    /// Exemplars that were sent.
    pub exemplars: u64,
    /// Series of version 1 that were dropped without an error, as Prometheus drops them.
    pub dropped_series: u64,
    /// Their samples and histograms.
    pub dropped_samples: u64,
    /// The first of these series, for the log.
    pub dropped_first: Option<String>,
}

/// How a version treats a series whose labels cannot be stored.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum OnInvalid {
    Drop,
    Report,
    /// Report, but another node's series may come with exemplars alone.
    Relay,
}

pub(crate) struct Assembly<'a> {
    pub(crate) out: Decoded,
    pub(crate) labels: LabelReader<'a>,
    limits: Limits,
    parts: usize,
    start: usize,
    histograms: Vec<&'a [u8]>,
    exemplars: Vec<&'a [u8]>,
    families: HashSet<&'a [u8]>,
}

/// Why a series, or the request, ended.
pub(crate) enum Stop {
    Broken(Broken),
    TooMuch(&'static str, usize),
}

impl From<Broken> for Stop {
    fn from(why: Broken) -> Self {
        Self::Broken(why)
    }
}

impl Stop {
    pub(crate) fn at(self, at: usize) -> DecodeError {
        match self {
            Self::Broken(why) => DecodeError::Broken { at, why },
            Self::TooMuch(what, max) => DecodeError::TooMuch { what, max },
        }
    }
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            out: Decoded::default(),
            labels: LabelReader::new(limits),
            limits: *limits,
            parts: limits.histogram_parts,
            start: 0,
            histograms: Vec::new(),
            exemplars: Vec::new(),
            families: HashSet::new(),
        }
    }

    /// A new series begins.
    pub(crate) fn begin(&mut self) {
        self.labels.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.start = self.out.batch.samples.len();
    }

    /// A `Sample`; the same in both versions but for the start time, which is not stored.
    #[inline]
    pub(crate) fn sample(&mut self, message: &[u8]) -> Result<(), Stop> {
        let (mut t, mut v) = (0, 0.0);
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => v = value.double()?,
                2 => t = value.int()?,
                _ => {}
            }
        }
        self.out.floats += 1;
        self.push(PushSample { t, v: PushValue::Float(v) })
    }

    #[inline]
    fn push(&mut self, sample: PushSample) -> Result<(), Stop> {
        if self.out.batch.samples.len() >= self.limits.samples {
            return Err(Stop::TooMuch("samples", self.limits.samples));
        }
        self.out.batch.samples.push(sample);
        Ok(())
    }

    pub(crate) fn histogram(&mut self, message: &'a [u8]) {
        self.histograms.push(message);
    }

    pub(crate) fn exemplar(&mut self, message: &'a [u8]) {
        self.exemplars.push(message);
    }

    /// Floats and histograms of the current series.
    pub(crate) fn samples_here(&self) -> u64 {
        (self.out.batch.samples.len() - self.start + self.histograms.len()) as u64
    }

    /// The current series is not stored.
    pub(crate) fn refuse(&mut self, reason: Reason, why: String) {
        let samples = self.samples_here();
        self.out.histograms += self.histograms.len() as u64;
        self.out.exemplars += self.exemplars.len() as u64;
        self.out.batch.samples.truncate(self.start);
        self.out.faults.add(reason, samples, || why);
    }

    fn drop_quietly(&mut self, why: String) {
        self.out.dropped_samples += self.samples_here();
        self.out.histograms += self.histograms.len() as u64;
        self.out.exemplars += self.exemplars.len() as u64;
        self.out.batch.samples.truncate(self.start);
        self.out.dropped_series += 1;
        self.out.dropped_first.get_or_insert(why);
    }

    /// The current series is complete: its labels are in `labels`. `labels_of` reads the label part of an exemplar.
    pub(crate) fn finish(
        &mut self,
        on_invalid: OnInvalid,
        labels_of: impl Fn(&mut LabelReader<'a>, &'a [u8]) -> Result<Option<String>, Stop>,
    ) -> Result<(), Stop> {
        let labels = match self.labels.series(&self.limits) {
            Ok(labels) => labels,
            Err(LabelFault::Budget) => {
                return Err(Stop::TooMuch("bytes of labels, written out,", self.limits.label_bytes));
            }
            Err(LabelFault::Series(Reason::InvalidLabels, why)) if on_invalid == OnInvalid::Drop => {
                self.drop_quietly(why);
                return Ok(());
            }
            Err(LabelFault::Series(reason, why)) => {
                self.refuse(reason, why);
                return Ok(());
            }
        };
        if self.samples_here() == 0 && on_invalid == OnInvalid::Report {
            self.refuse(Reason::EmptySeries, shown(&labels));
            return Ok(());
        }
        self.read_histograms(&labels)?;
        let range = self.start as u32..self.out.batch.samples.len() as u32;
        if range.is_empty() && self.exemplars.is_empty() {
            return Ok(());
        }
        self.out.batch.series.push(PushSeries { labels, samples: range });
        self.read_exemplars(labels_of)
    }

    fn read_histograms(&mut self, labels: &koios_model::Labels) -> Result<(), Stop> {
        for message in std::mem::take(&mut self.histograms) {
            self.out.histograms += 1;
            let read = if message.len() > self.limits.histogram_bytes {
                Read::Bad(0, format!("{} bytes, at most {}", message.len(), self.limits.histogram_bytes))
            } else {
                histogram::read(message, &mut self.parts)?
            };
            match read {
                Read::Good(sample) => self.push(sample)?,
                Read::Bad(t, why) => {
                    let place = || format!("{why} ({} at {t})", shown(labels));
                    self.out.faults.add(Reason::BadHistogram, 1, place);
                }
                Read::Budget => return Err(Stop::TooMuch("histogram buckets", self.limits.histogram_parts)),
            }
        }
        Ok(())
    }

    /// Exemplars are beside the point of a request: one that is wrong is left out and counted.
    fn read_exemplars(
        &mut self,
        labels_of: impl Fn(&mut LabelReader<'a>, &'a [u8]) -> Result<Option<String>, Stop>,
    ) -> Result<(), Stop> {
        let series = (self.out.batch.series.len() - 1) as u32;
        for message in std::mem::take(&mut self.exemplars) {
            self.out.exemplars += 1;
            self.labels.clear();
            if labels_of(&mut self.labels, message)?.is_some() {
                continue;
            }
            let (mut t, mut v) = (0, 0.0);
            let mut fields = Fields::of(message);
            while let Some((number, value)) = fields.next()? {
                match number {
                    2 => v = value.double()?,
                    3 => t = value.int()?,
                    _ => {}
                }
            }
            let short = self.labels.bytes() <= EXEMPLAR_CHARS_MAX * UTF8_MAX;
            if !short || self.out.batch.exemplars.len() >= self.limits.exemplars {
                continue;
            }
            let Ok(labels) = self.labels.exemplar() else { continue };
            let exemplar = Exemplar { labels, t, v };
            if exemplar.is_short() {
                self.out.batch.exemplars.push(PushExemplar { series, exemplar });
            }
        }
        Ok(())
    }

    /// What is said about a family. Said twice, the first counts; what does not fit is left out.
    pub(crate) fn family(&mut self, name: &'a [u8], kind: u64, help: &'a [u8], unit: &'a [u8]) {
        let max = self.limits.help_bytes;
        let long = name.len() > self.limits.name_bytes || help.len() > max || unit.len() > max;
        if name.is_empty() || long || self.out.batch.metadata.len() >= self.limits.families {
            return;
        }
        if !self.families.insert(name) || !self.labels.pay(name.len() + help.len() + unit.len()) {
            return;
        }
        let text = |b: &[u8]| std::str::from_utf8(b).ok().map(str::to_owned);
        let kind = u8::try_from(kind).ok().and_then(MetricKind::from_u8).unwrap_or_default();
        if let (Some(name), Some(help), Some(unit)) = (text(name), text(help), text(unit)) {
            self.out.batch.metadata.push((name, MetricMetadata { kind, help, unit }));
        }
    }
}
