//! Counters without their resets, over the chunks of one replica.
//!
//! Thanos downsamples a counter to how far it got since the chunk's first sample, which the chunk keeps as it was, and
//! repeats the last time with the last raw value. Reading goes over raw and downsampled chunks alike and adds up what
//! the counter gained; a value that fell counts as a reset. Histograms pass as they are.

use koios_chunk::{Chunk, ChunkError, Encoding};
use koios_model::Columns;

/// The samples of chunks in time order, each value what the counter got to since the first chunk began.
pub(super) fn taken_out<'a>(chunks: impl Iterator<Item = &'a Chunk>) -> Result<Columns, ChunkError> {
    let mut out = Columns::default();
    let mut last: Option<f64> = None;
    let mut total = 0.0;
    for chunk in chunks {
        let mut one = Columns::default();
        match chunk.encoding {
            Encoding::Aggregate => chunk.read_counter(&mut one)?,
            _ => chunk.read(i64::MIN, i64::MAX, &mut one)?,
        }
        for i in 0..one.len() {
            let (t, v) = (one.times[i], one.values[i]);
            let before = out.times.last().copied();
            if one.histogram(i).is_some() {
                if before.is_none_or(|b| b < t) {
                    out.push_from(&one, i);
                }
                continue;
            }
            if v.is_nan() {
                continue;
            }
            match last {
                Some(l) if before.is_none_or(|b| b < t) => total += if v >= l { v - l } else { v },
                // The last time once more: what the counter really stood at, by which the next chunk is measured.
                Some(_) if before == Some(t) => {
                    last = Some(v);
                    continue;
                }
                Some(_) => continue,
                None => total = v,
            }
            last = Some(v);
            out.push(t, total);
        }
    }
    Ok(out)
}
