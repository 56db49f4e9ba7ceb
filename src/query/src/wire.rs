//! Scopes and answers as protobuf, and back. A message from a peer is checked, not trusted.

use koios_chunk::{Chunk, Encoding, SeriesChunks};
use koios_cluster::Member;
use koios_model::{BlockId, Labels, MatchType, Matcher, Slot};
use koios_proto::peer as pb;
use koios_store::Dress;

use crate::scope::{Answer, Missing, MissingReason, Part, Scope, Shard};

/// Most matchers in a request.
pub const MATCHERS_MAX: usize = 256;
/// Most blocks in a request.
pub const BLOCKS_MAX: usize = 100_000;

/// A scope for `node`.
pub fn scope_to_pb(s: &Scope, node: &Member, ring_hash: u64, deadline_ms: u64) -> pb::Scope {
    pb::Scope {
        query_id: s.query_id.clone(),
        node: node.name.clone(),
        generation: node.generation,
        ring_hash,
        min_time: s.mint,
        max_time: s.maxt,
        own: s.own,
        blocks: s.blocks.iter().map(ToString::to_string).collect(),
        whole_bucket: s.whole_bucket,
        deadline_ms,
        series_max: s.series_max,
        bytes_max: s.bytes_max,
        samples_max: s.samples_max,
        shard_index: s.shard.index,
        // A peer of before counts no shards, and is never asked for one.
        shard_count: if s.shard == Shard::WHOLE { 0 } else { s.shard.count },
        may_split: s.may_split,
        max_resolution: s.max_resolution_ms,
        full_labels: s.dress == Dress::Full,
    }
}

/// A scope from a peer.
///
/// # Errors
/// What is wrong with it.
pub fn scope_from_pb(s: &pb::Scope) -> Result<Scope, String> {
    if s.blocks.len() > BLOCKS_MAX {
        return Err(format!("{} blocks in one request, at most {BLOCKS_MAX}", s.blocks.len()));
    }
    let count = s.shard_count.max(1);
    if s.shard_index >= count {
        return Err(format!("shard {} of {count} does not exist", s.shard_index));
    }
    let blocks = s.blocks.iter().map(|b| b.parse().map_err(|e| format!("{e}"))).collect::<Result<_, _>>()?;
    Ok(Scope {
        query_id: s.query_id.chars().take(64).collect(),
        mint: s.min_time,
        maxt: s.max_time,
        own: s.own,
        blocks,
        whole_bucket: s.whole_bucket,
        series_max: s.series_max,
        bytes_max: s.bytes_max,
        // An asker of before knows no bound.
        samples_max: if s.samples_max == 0 { u64::MAX } else { s.samples_max },
        shard: Shard { index: s.shard_index, count },
        may_split: s.may_split,
        max_resolution_ms: s.max_resolution,
        dress: if s.full_labels { Dress::Full } else { Dress::Home },
    })
}

/// Matchers for the wire.
pub fn matchers_to_pb(matchers: &[Matcher]) -> Vec<pb::Matcher> {
    let kind = |k| match k {
        MatchType::Equal => pb::MatchKind::Equal,
        MatchType::NotEqual => pb::MatchKind::NotEqual,
        MatchType::Regex => pb::MatchKind::Regex,
        MatchType::NotRegex => pb::MatchKind::NotRegex,
    };
    matchers
        .iter()
        .map(|m| pb::Matcher { kind: kind(m.kind).into(), name: m.name.clone(), value: m.value.clone() })
        .collect()
}

/// Matchers from a peer.
///
/// # Errors
/// What is wrong with them.
pub fn matchers_from_pb(matchers: &[pb::Matcher]) -> Result<Vec<Matcher>, String> {
    if matchers.len() > MATCHERS_MAX {
        return Err(format!("{} matchers in one request, at most {MATCHERS_MAX}", matchers.len()));
    }
    let one = |m: &pb::Matcher| {
        let kind = match m.kind() {
            pb::MatchKind::Equal => MatchType::Equal,
            pb::MatchKind::NotEqual => MatchType::NotEqual,
            pb::MatchKind::Regex => MatchType::Regex,
            pb::MatchKind::NotRegex => MatchType::NotRegex,
        };
        Matcher::new(kind, m.name.as_str(), m.value.as_str()).map_err(|e| e.to_string())
    };
    matchers.iter().map(one).collect()
}

/// Names and values in turn.
pub(crate) fn labels_to_pb(labels: &Labels) -> Vec<String> {
    labels.iter().flat_map(|(n, v)| [n.to_owned(), v.to_owned()]).collect()
}

/// A series for the wire.
pub fn series_to_pb(s: SeriesChunks) -> pb::Series {
    pb::Series {
        labels: labels_to_pb(&s.labels),
        slot: u32::from(s.slot.0),
        chunks: s
            .chunks
            .into_iter()
            .map(|c| pb::Chunk {
                min_time: c.min_time,
                max_time: c.max_time,
                encoding: c.encoding as u32,
                data: c.data,
            })
            .collect(),
    }
}

/// A series from a peer.
///
/// # Errors
/// What is wrong with it.
pub fn series_from_pb(s: pb::Series) -> Result<SeriesChunks, String> {
    if !s.labels.len().is_multiple_of(2) {
        return Err("a label without a value".into());
    }
    let labels = Labels::from_pairs(s.labels.chunks_exact(2).map(|p| (p[0].as_str(), p[1].as_str())));
    let slot = u8::try_from(s.slot).map_err(|_| format!("slot {} does not exist", s.slot))?;
    let chunk = |c: pb::Chunk| {
        let encoding = u8::try_from(c.encoding).ok().and_then(Encoding::from_u8);
        let encoding = encoding.ok_or_else(|| format!("unknown chunk encoding {}", c.encoding))?;
        Ok(Chunk { min_time: c.min_time, max_time: c.max_time, encoding, data: c.data })
    };
    let chunks = s.chunks.into_iter().map(chunk).collect::<Result<_, String>>()?;
    Ok(SeriesChunks { labels, slot: Slot(slot), chunks })
}

/// The account of parts for the wire.
pub fn trailer_to_pb(
    served: &[Part],
    missing: &[Missing],
    moved: &[BlockId],
    warnings: Vec<String>,
) -> pb::Trailer {
    let name = |p: &Part| match p {
        Part::Own => String::new(),
        Part::Block(id) => id.to_string(),
    };
    pb::Trailer {
        served: served.iter().map(|p| pb::Served { block: name(p) }).collect(),
        missing: missing
            .iter()
            .map(|m| pb::Missing {
                block: name(&m.part),
                reason: m.reason.as_str().to_owned(),
                detail: m.detail.clone(),
            })
            .collect(),
        warnings,
        moved: moved.iter().map(ToString::to_string).collect(),
        ..pb::Trailer::default()
    }
}

/// The account of parts from a peer, added to `answer`.
///
/// # Errors
/// What is wrong with it.
pub fn trailer_into(t: pb::Trailer, answer: &mut Answer) -> Result<(), String> {
    let part = |text: &str| {
        if text.is_empty() {
            Ok(Part::Own)
        } else {
            text.parse().map(Part::Block).map_err(|e| format!("{e}"))
        }
    };
    for s in &t.served {
        answer.served.push(part(&s.block)?);
    }
    for m in t.missing {
        let part = part(&m.block)?;
        answer.missing.push(Missing { part, reason: MissingReason::parse(&m.reason), detail: m.detail });
    }
    for id in &t.moved {
        answer.moved.push(id.parse().map_err(|e| format!("{e}"))?);
    }
    answer.split = answer.split.max(t.split_into);
    answer.warnings.extend(t.warnings);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::member;
    use koios_model::Columns;

    #[test]
    fn the_account_of_an_answer_survives_the_wire() {
        let id = |n| BlockId::from_parts(n, 1);
        let gone = Missing { part: Part::Block(id(2)), reason: MissingReason::Gone, detail: "x".into() };
        let (served, missing) = ([Part::Own, Part::Block(id(1))], [gone]);
        let sent = trailer_to_pb(&served, &missing, &[id(3)], vec!["w".into()]);
        let mut got = Answer::default();
        trailer_into(sent.clone(), &mut got).unwrap();
        assert_eq!(
            (&got.served[..], &got.missing[..], &got.moved[..]),
            (&served[..], &missing[..], &[id(3)][..])
        );
        assert_eq!(got.warnings, ["w"]);
        assert!(trailer_into(pb::Trailer { moved: vec!["?".into()], ..sent }, &mut got).is_err());
    }

    #[test]
    fn everything_survives_the_wire() {
        let scope = Scope {
            query_id: "q".into(),
            mint: -5,
            maxt: 7,
            own: true,
            blocks: vec![BlockId::from_parts(1, 2)],
            whole_bucket: true,
            series_max: 3,
            bytes_max: 4,
            samples_max: 5,
            shard: Shard { index: 1, count: 3 },
            may_split: true,
            max_resolution_ms: 300_000,
            dress: Dress::Full,
        };
        assert_eq!(scope_from_pb(&scope_to_pb(&scope, &member("a", "b"), 1, 2)).unwrap(), scope);
        let matchers = vec![Matcher::new(MatchType::NotRegex, "a", "x.*").unwrap(), Matcher::equal("b", "1")];
        assert_eq!(matchers_from_pb(&matchers_to_pb(&matchers)).unwrap(), matchers);

        let mut samples = Columns::default();
        samples.push(-3, 1.5);
        let series = SeriesChunks {
            labels: Labels::from_pairs([("a", "1")]),
            slot: Slot(1),
            chunks: koios_chunk::encode_xor(&samples, 120),
        };
        let back = series_from_pb(series_to_pb(series.clone())).unwrap();
        assert_eq!((&back.labels, back.slot, &back.chunks), (&series.labels, series.slot, &series.chunks));
    }

    #[test]
    fn peers_are_not_trusted() {
        assert!(scope_from_pb(&pb::Scope { blocks: vec!["../x".into()], ..Default::default() }).is_err());
        assert!(scope_from_pb(&pb::Scope { shard_index: 3, shard_count: 3, ..Default::default() }).is_err());
        assert!(series_from_pb(pb::Series { labels: vec!["a".into()], ..Default::default() }).is_err());
        assert!(series_from_pb(pb::Series { slot: 999, ..Default::default() }).is_err());
        let odd = pb::Chunk { encoding: 200, ..Default::default() };
        assert!(series_from_pb(pb::Series { chunks: vec![odd], ..Default::default() }).is_err());
        let bad = pb::Matcher { kind: 2, name: "a".into(), value: "(".into() };
        assert!(matchers_from_pb(&[bad]).is_err());
    }
}
