//! What a node acknowledged.
//!
//! A scrape's time on `/api/v1/targets` moves only after its samples were appended and synced, so each (target,
//! time) seen there is a promise for all series of that target.

use std::collections::{BTreeMap, BTreeSet};

use crate::Api;

/// Times of acknowledged scrapes by target, milliseconds.
pub type AckLog = BTreeMap<String, BTreeSet<i64>>;

/// The newest acknowledged scrape of each target, as the node says now; empty when it does not answer.
pub async fn of(api: &Api) -> AckLog {
    let mut log = AckLog::new();
    let Ok(data) = api.data("/api/v1/targets", &[("state", "active")]).await else { return log };
    for t in data["activeTargets"].as_array().into_iter().flatten() {
        let target = t["labels"]["instance"].as_str().unwrap_or("").to_owned();
        for s in t["scrapers"].as_array().into_iter().flatten().filter(|s| s["health"] == "up") {
            if let Some(ms) = s["lastScrape"].as_str().and_then(millis).filter(|ms| *ms > 0) {
                log.entry(target.clone()).or_default().insert(ms);
            }
        }
    }
    log
}

/// `2026-11-23T03:54:08.239Z` on one day is enough for a test: milliseconds since the epoch.
fn millis(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut d = date.split('-').map(|p| p.parse::<i64>());
    let (y, m, day) = (d.next()?.ok()?, d.next()?.ok()?, d.next()?.ok()?);
    let days =
        365 * (y - 1970) + (y - 1969).div_euclid(4) - (y - 1901).div_euclid(100) + (y - 1601).div_euclid(400);
    let lengths = [
        31,
        if y % 4 == 0 && (y % 100 != 0 || y % 400 == 0) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let days = days + lengths[..(m - 1) as usize].iter().sum::<i64>() + day - 1;
    let (hms, frac) = time.split_once('.')?;
    let mut t = hms.split(':').map(|p| p.parse::<i64>());
    let seconds = (t.next()?.ok()? * 60 + t.next()?.ok()?) * 60 + t.next()?.ok()?;
    Some((days * 86_400 + seconds) * 1000 + frac.parse::<i64>().ok()?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_read_right() {
        assert_eq!(super::millis("2026-11-23T03:54:08.239Z"), Some(1_795_406_048_239));
        assert_eq!(super::millis("1970-01-01T00:00:00.001Z"), Some(1));
    }
}
