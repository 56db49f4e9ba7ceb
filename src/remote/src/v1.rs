//! Remote write 1.0: `prometheus.WriteRequest`, walked in place (`proto/prometheus/remote.proto`).
//!
//! Generated types would make a `String` of every label name and value, twenty for a usual series, to be thrown away
//! at once (`benches/decode.rs` measures both). Series with invalid labels are dropped without an error, as Prometheus
//! does, and counted.

use crate::assembly::{Assembly, DecodeError, Decoded, OnInvalid, Stop};
use crate::labels::LabelReader;
use crate::limits::Limits;
use crate::wire::Fields;

/// Decodes an unpacked request.
///
/// # Errors
/// When the bytes are no such message, or ask for more than the limits; nothing of the request is usable then.
pub fn decode(body: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    let mut assembly = Assembly::new(limits);
    let mut fields = Fields::of(body);
    let mut at = 0;
    while let Some((number, value)) = fields.next().map_err(|e| Stop::Broken(e).at(at))? {
        let read = match number {
            1 => value.bytes().map_err(Stop::Broken).and_then(|m| series(&mut assembly, m)),
            3 => value.bytes().map_err(Stop::Broken).and_then(|m| metadata(&mut assembly, m)),
            _ => Ok(()),
        };
        read.map_err(|stop| stop.at(at))?;
        at += 1;
    }
    Ok(assembly.out)
}

fn series<'a>(assembly: &mut Assembly<'a>, message: &'a [u8]) -> Result<(), Stop> {
    assembly.begin();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => label(&mut assembly.labels, value.bytes()?)?,
            2 => assembly.sample(value.bytes()?)?,
            3 => assembly.exemplar(value.bytes()?),
            4 => assembly.histogram(value.bytes()?),
            _ => {}
        }
    }
    assembly.finish(OnInvalid::Drop, |labels, exemplar| {
        let mut fields = Fields::of(exemplar);
        while let Some((number, value)) = fields.next()? {
            if number == 1 {
                label(labels, value.bytes()?)?;
            }
        }
        Ok(None)
    })
}

#[inline]
fn label<'a>(labels: &mut LabelReader<'a>, message: &'a [u8]) -> Result<(), Stop> {
    let (mut name, mut text): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => name = value.bytes()?,
            2 => text = value.bytes()?,
            _ => {}
        }
    }
    labels.push(name, text);
    Ok(())
}

fn metadata<'a>(assembly: &mut Assembly<'a>, message: &'a [u8]) -> Result<(), Stop> {
    let (mut kind, mut name, mut help, mut unit): (u64, &[u8], &[u8], &[u8]) = (0, &[], &[], &[]);
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => kind = value.uint()?,
            2 => name = value.bytes()?,
            4 => help = value.bytes()?,
            5 => unit = value.bytes()?,
            _ => {}
        }
    }
    assembly.family(name, kind, help, unit);
    Ok(())
}
