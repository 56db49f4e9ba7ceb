//! A batch written as `io.prometheus.write.v2.Request`, for another node or another receiver.
//!
//! Owns the writing half of `v2`. Decoding gives the same series and samples again (a property test says so); of a
//! series with both, floats come before histograms. Metadata is left out. Allocates the output and a table of texts.

use std::collections::HashMap;

use koios_chunk::IntHistogram;
use koios_model::histogram::{Buckets, CUSTOM_SCHEMA, CounterReset, FloatHistogram, Span};
use koios_model::{Exemplar, Labels};

use crate::batch::{PushBatch, PushSample, PushValue};

/// Texts, each once; 0 is the empty one.
struct Symbols<'a> {
    texts: Vec<&'a str>,
    numbers: HashMap<&'a str, u64>,
}

impl<'a> Symbols<'a> {
    fn number(&mut self, text: &'a str) -> u64 {
        let (texts, next) = (&mut self.texts, self.numbers.len() as u64);
        *self.numbers.entry(text).or_insert_with(|| {
            texts.push(text);
            next
        })
    }
}

/// The samples with ascending numbers `wanted`, with the exemplars of their series, and the exemplars of the series at
/// ascending positions `bare`, which have no samples. Answers the bytes, and for each sample in the order of decoding
/// its number in the batch.
pub fn encode(batch: &PushBatch, wanted: &[u32], bare: &[u32]) -> (Vec<u8>, Vec<u32>) {
    let mut symbols = Symbols { texts: vec![""], numbers: HashMap::from([("", 0)]) };
    let (mut body, mut series, mut part) = (Vec::new(), Vec::new(), Vec::new());
    let (mut numbers, mut rest, mut bare) =
        (Vec::with_capacity(wanted.len()), wanted, bare.iter().peekable());
    let mut exemplars = batch.exemplars.iter().peekable();
    for (at, s) in batch.series.iter().enumerate() {
        let (own, others) = rest.split_at(rest.partition_point(|n| *n < s.samples.end));
        rest = others;
        let is_bare = bare.next_if(|b| **b as usize == at).is_some();
        let here = std::iter::from_fn(|| exemplars.next_if(|e| e.series as usize <= at));
        let here: Vec<_> = here.filter(|e| e.series as usize == at).collect();
        if own.is_empty() && !is_bare {
            continue;
        }
        series.clear();
        labels(&mut symbols, 1, &s.labels, &mut series, &mut part);
        for float in [true, false] {
            for &n in own.iter().filter(|n| batch.samples[**n as usize].v.is_float() == float) {
                put_sample(&batch.samples[n as usize], &mut series, &mut part);
                numbers.push(n);
            }
        }
        here.iter().for_each(|e| put_exemplar(&mut symbols, &e.exemplar, &mut series, &mut part));
        put_bytes(&mut body, 5, &series);
    }
    let mut out = Vec::with_capacity(body.len() + symbols.texts.iter().map(|t| t.len() + 4).sum::<usize>());
    symbols.texts.iter().for_each(|t| put_bytes(&mut out, 4, t.as_bytes()));
    out.extend_from_slice(&body);
    (out, numbers)
}

fn labels<'a>(symbols: &mut Symbols<'a>, field: u64, l: &'a Labels, out: &mut Vec<u8>, part: &mut Vec<u8>) {
    part.clear();
    for (name, value) in l {
        put_varint(part, symbols.number(name));
        put_varint(part, symbols.number(value));
    }
    put_bytes(out, field, part);
}

fn put_sample(s: &PushSample, out: &mut Vec<u8>, part: &mut Vec<u8>) {
    part.clear();
    let (field, time) = match &s.v {
        PushValue::Float(v) => {
            put_double(part, 1, *v);
            (2, 2)
        }
        PushValue::Histogram(h) => {
            put_whole(part, h);
            (3, 15)
        }
        PushValue::FloatHistogram(h) => {
            put_float(part, h);
            (3, 15)
        }
    };
    put_int(part, time, s.t as u64);
    put_bytes(out, field, part);
}

fn put_exemplar<'a>(symbols: &mut Symbols<'a>, e: &'a Exemplar, out: &mut Vec<u8>, part: &mut Vec<u8>) {
    let mut message = Vec::new();
    labels(symbols, 1, &e.labels, &mut message, part);
    put_double(&mut message, 2, e.v);
    put_int(&mut message, 3, e.t as u64);
    put_bytes(out, 4, &message);
}

fn hint(h: CounterReset) -> u64 {
    match h {
        CounterReset::Unknown => 0,
        CounterReset::Reset => 1,
        CounterReset::NotReset => 2,
        CounterReset::Gauge => 3,
    }
}

fn put_whole(out: &mut Vec<u8>, h: &IntHistogram) {
    put_int(out, 1, h.count);
    put_double(out, 3, h.sum);
    put_int(out, 4, zigzag(i64::from(h.schema)));
    put_double(out, 5, h.zero_threshold);
    put_int(out, 6, h.zero_count);
    for (field, spans, deltas) in [(8, &h.negative_spans, &h.negative), (11, &h.positive_spans, &h.positive)]
    {
        put_spans(out, field, spans);
        let mut packed = Vec::with_capacity(deltas.len());
        deltas.iter().for_each(|d| put_varint(&mut packed, zigzag(*d)));
        put_bytes(out, field + 1, &packed);
    }
    put_int(out, 14, hint(h.hint));
    put_custom(out, h.schema, &h.custom_values);
}

pub(crate) fn put_float(out: &mut Vec<u8>, h: &FloatHistogram) {
    // These two are choices between whole and float: written even when they are 0.
    put_double(out, 2, h.count);
    put_double(out, 3, h.sum);
    put_int(out, 4, zigzag(i64::from(h.schema)));
    put_double(out, 5, h.zero_threshold);
    put_double(out, 7, h.zero_count);
    for (field, Buckets { spans, counts }) in [(8, &h.negative), (11, &h.positive)] {
        put_spans(out, field, spans);
        put_doubles(out, field + 2, counts);
    }
    put_int(out, 14, hint(h.hint));
    put_custom(out, h.schema, &h.custom_values);
}

fn put_custom(out: &mut Vec<u8>, schema: i32, bounds: &[f64]) {
    if schema == CUSTOM_SCHEMA {
        put_doubles(out, 16, bounds);
    }
}

fn put_spans(out: &mut Vec<u8>, field: u64, spans: &[Span]) {
    for s in spans {
        let mut message = Vec::with_capacity(8);
        put_int(&mut message, 1, zigzag(i64::from(s.offset)));
        put_int(&mut message, 2, u64::from(s.length));
        put_bytes(out, field, &message);
    }
}

fn zigzag(v: i64) -> u64 {
    (v << 1 ^ v >> 63) as u64
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

pub(crate) fn put_int(out: &mut Vec<u8>, field: u64, v: u64) {
    put_varint(out, field << 3);
    put_varint(out, v);
}

pub(crate) fn put_double(out: &mut Vec<u8>, field: u64, v: f64) {
    put_varint(out, field << 3 | 1);
    out.extend_from_slice(&v.to_bits().to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_doubles(out: &mut Vec<u8>, field: u64, values: &[f64]) {
    if values.is_empty() {
        return;
    }
    let packed: Vec<u8> = values.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
    put_bytes(out, field, &packed);
}
