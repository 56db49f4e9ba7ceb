//! Remote write 2.0: `io.prometheus.write.v2.Request`, walked in place (`proto/prometheus/write_v2.proto`).
//!
//! Two passes: symbols may stand behind the series that name them. A series that cannot be stored is an error to the
//! sender, the others are stored. Start times are read over: the head has no place for them, and Prometheus' receiver
//! does not store them either.

use crate::assembly::{Assembly, DecodeError, Decoded, OnInvalid, Stop};
use crate::faults::Reason;
use crate::labels::LabelReader;
use crate::limits::Limits;
use crate::wire::{Fields, Value, each_uint};

/// Kinds whose series have other names than the family, by number, with the suffixes.
const SUFFIXES: [(u64, &[&str]); 3] =
    [(3, &["_bucket", "_sum", "_count"]), (4, &["_bucket", "_gsum", "_gcount"]), (5, &["_sum", "_count"])];

/// Decodes an unpacked request.
///
/// # Errors
/// When the bytes are no such message, or ask for more than the limits; nothing of the request is usable then.
pub fn decode(body: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    decode_with(body, limits, OnInvalid::Report)
}

pub(crate) fn decode_with(body: &[u8], limits: &Limits, invalid: OnInvalid) -> Result<Decoded, DecodeError> {
    let symbols = symbols(body, limits)?;
    let mut assembly = Assembly::new(limits);
    let mut reader = Reader { symbols: &symbols, refs: Vec::new(), invalid };
    let mut fields = Fields::of(body);
    let mut at = 0;
    while let Some((number, value)) = fields.next().map_err(|e| Stop::Broken(e).at(at))? {
        if number == 5 {
            let read = value.bytes().map_err(Stop::Broken);
            read.and_then(|m| reader.series(&mut assembly, m)).map_err(|stop| stop.at(at))?;
            at += 1;
        }
    }
    Ok(assembly.out)
}

fn symbols<'a>(body: &'a [u8], limits: &Limits) -> Result<Vec<&'a [u8]>, DecodeError> {
    let mut symbols = Vec::new();
    let mut fields = Fields::of(body);
    while let Some((number, value)) = fields.next().map_err(|e| Stop::Broken(e).at(0))? {
        if number == 4 {
            if symbols.len() >= limits.symbols {
                return Err(Stop::TooMuch("symbols", limits.symbols).at(0));
            }
            symbols.push(value.bytes().map_err(|e| Stop::Broken(e).at(0))?);
        }
    }
    Ok(symbols)
}

struct Reader<'s, 'a> {
    symbols: &'s [&'a [u8]],
    refs: Vec<u64>,
    invalid: OnInvalid,
}

impl<'a> Reader<'_, 'a> {
    fn series(&mut self, assembly: &mut Assembly<'a>, message: &'a [u8]) -> Result<(), Stop> {
        assembly.begin();
        self.refs.clear();
        let mut said: &[u8] = &[];
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => each_uint(value, |v| self.refs.push(v))?,
                2 => assembly.sample(value.bytes()?)?,
                3 => assembly.histogram(value.bytes()?),
                4 => assembly.exemplar(value.bytes()?),
                5 => said = value.bytes()?,
                _ => {}
            }
        }
        if let Err(why) = resolve(self.symbols, &self.refs, &mut assembly.labels) {
            assembly.refuse(Reason::InvalidLabels, why);
            return Ok(());
        }
        let name = assembly.labels.metric_name();
        let symbols = self.symbols;
        assembly.finish(self.invalid, |labels, exemplar| exemplar_labels(symbols, labels, exemplar))?;
        self.metadata(assembly, name, said)
    }

    fn metadata(&self, assembly: &mut Assembly<'a>, name: &'a [u8], message: &'a [u8]) -> Result<(), Stop> {
        let (mut kind, mut help, mut unit) = (0, 0, 0);
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => kind = value.uint()?,
                3 => help = value.uint()?,
                4 => unit = value.uint()?,
                _ => {}
            }
        }
        if (kind, help, unit) != (0, 0, 0) {
            let text = |r: u64| usize::try_from(r).ok().and_then(|r| self.symbols.get(r)).copied();
            assembly.family(
                family_of(name, kind),
                kind,
                text(help).unwrap_or_default(),
                text(unit).unwrap_or_default(),
            );
        }
        Ok(())
    }
}

/// The family that a series belongs to.
fn family_of(name: &[u8], kind: u64) -> &[u8] {
    let suffixes = SUFFIXES.iter().find(|(k, _)| *k == kind).map_or(&[][..], |(_, s)| *s);
    suffixes.iter().find_map(|s| name.strip_suffix(s.as_bytes())).filter(|f| !f.is_empty()).unwrap_or(name)
}

/// Names and values by reference.
fn resolve<'a>(symbols: &[&'a [u8]], refs: &[u64], labels: &mut LabelReader<'a>) -> Result<(), String> {
    let (pairs, odd) = refs.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(format!("{} label references are not pairs of name and value", refs.len()));
    }
    let text = |r: u64| {
        let found = usize::try_from(r).ok().and_then(|r| symbols.get(r)).copied();
        found.ok_or_else(|| format!("label reference {r} is beyond the {} symbols", symbols.len()))
    };
    for [name, value] in pairs {
        labels.push(text(*name)?, text(*value)?);
    }
    Ok(())
}

fn exemplar_labels<'a>(
    symbols: &[&'a [u8]],
    labels: &mut LabelReader<'a>,
    message: &'a [u8],
) -> Result<Option<String>, Stop> {
    let mut refs = Vec::new();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        if let (1, Value::Varint(_) | Value::Bytes(_)) = (number, value) {
            each_uint(value, |v| refs.push(v))?;
        }
    }
    Ok(resolve(symbols, &refs, labels).err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        assert_eq!(family_of(b"a_bucket", 3), b"a");
        assert_eq!(family_of(b"a_total", 1), b"a_total");
        assert_eq!(family_of(b"a_count", 5), b"a");
        assert_eq!(family_of(b"_sum", 5), b"_sum");
    }

    #[test]
    fn references() {
        let symbols: [&[u8]; 3] = [b"", b"__name__", b"up"];
        let mut labels = LabelReader::new(&Limits::default());
        assert!(resolve(&symbols, &[1, 2], &mut labels).is_ok());
        assert_eq!(labels.metric_name(), b"up");
        assert!(resolve(&symbols, &[1], &mut labels).unwrap_err().contains("not pairs"));
        assert!(resolve(&symbols, &[1, 3], &mut labels).unwrap_err().contains("beyond the 3 symbols"));
        assert!(resolve(&symbols, &[1, u64::MAX], &mut labels).is_err());
    }
}
