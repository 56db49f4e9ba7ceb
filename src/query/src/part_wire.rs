//! Parts of queries and their rows as protobuf, and back. Checked, not trusted.

use koios_model::Labels;
use koios_promql::{EngineOptions, Pushable, PushedRow, PushedRows, QueryParams};
use koios_proto::peer as pb;

use crate::pushing::{Evaluated, PartRequest};
use crate::wire;

/// Longest query that a peer may send, bytes.
const QUERY_BYTES_MAX: usize = 1 << 20;

/// A request for a node.
pub(crate) fn request_to_pb(part: &PartRequest, scope: pb::Scope) -> pb::EvaluateRequest {
    let p = &part.params;
    pb::EvaluateRequest {
        scope: Some(scope),
        query: part.query.clone(),
        start: p.start_ms,
        end: p.end_ms,
        step: p.step_ms,
        lookback: p.lookback_ms,
        subquery_step: p.default_subquery_step_ms,
        delayed_name_removal: p.options.delayed_name_removal,
        start_timestamps: p.options.start_timestamps,
        type_and_unit_labels: p.options.type_and_unit_labels,
        input: part.what.input as u32,
        line: part.what.place.0,
        column: part.what.place.1,
        partial: part.what.partial,
        only_if_smaller: part.only_if_smaller,
    }
}

/// A request from a peer, whose scope is known already.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn request_from_pb(
    r: pb::EvaluateRequest,
    scope: crate::scope::Scope,
) -> Result<PartRequest, String> {
    if r.query.len() > QUERY_BYTES_MAX {
        return Err(format!("a query of {} bytes, at most {QUERY_BYTES_MAX}", r.query.len()));
    }
    if scope.own || scope.whole_bucket || scope.may_split {
        return Err("only blocks can be evaluated".to_owned());
    }
    let options = EngineOptions {
        delayed_name_removal: r.delayed_name_removal,
        start_timestamps: r.start_timestamps,
        type_and_unit_labels: r.type_and_unit_labels,
    };
    let params = QueryParams {
        lookback_ms: r.lookback,
        default_subquery_step_ms: r.subquery_step,
        options,
        ..QueryParams::range(r.start, r.end, r.step)
    };
    let what = Pushable { input: r.input as usize, place: (r.line, r.column), partial: r.partial };
    Ok(PartRequest { scope, query: r.query, params, what, only_if_smaller: r.only_if_smaller })
}

/// A row for the wire.
pub(crate) fn row_to_pb(row: PushedRow) -> pb::PushedRow {
    pb::PushedRow {
        key: wire::labels_to_pb(&row.key),
        labels: wire::labels_to_pb(&row.labels),
        drop_name: row.drop_name,
        values: row.values.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect(),
    }
}

/// A row from a peer.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn row_from_pb(row: pb::PushedRow) -> Result<PushedRow, String> {
    let labels = |pairs: &[String]| match pairs.len().is_multiple_of(2) {
        true => Ok(Labels::from_pairs(pairs.chunks_exact(2).map(|p| (p[0].as_str(), p[1].as_str())))),
        false => Err("a label without a value".to_owned()),
    };
    let (words, rest) = row.values.as_chunks::<8>();
    if !rest.is_empty() {
        return Err("half a value".to_owned());
    }
    let values = words.iter().map(|b| f64::from_bits(u64::from_le_bytes(*b))).collect();
    Ok(PushedRow { key: labels(&row.key)?, labels: labels(&row.labels)?, drop_name: row.drop_name, values })
}

/// The end of an answer, and the rows before it.
pub(crate) fn end_to_pb(evaluated: Evaluated) -> (Vec<PushedRow>, pb::Evaluated) {
    match evaluated {
        Ok(rows) => {
            let (samples_read, samples_queryable) = (rows.samples_read, rows.samples_queryable);
            let declined = String::new();
            (rows.rows, pb::Evaluated { declined, infos: rows.infos, samples_read, samples_queryable })
        }
        Err(declined) => (Vec::new(), pb::Evaluated { declined, ..pb::Evaluated::default() }),
    }
}

/// What a peer's rows and its last words come to.
pub(crate) fn end_from_pb(end: pb::Evaluated, rows: Vec<PushedRow>) -> Evaluated {
    let (samples_read, samples_queryable) = (end.samples_read, end.samples_queryable);
    match end.declined.is_empty() {
        true => Ok(PushedRows { rows, infos: end.infos, samples_read, samples_queryable }),
        false => Err(end.declined),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::scope;

    #[test]
    fn requests_and_rows_survive_the_wire() {
        let part = PartRequest {
            scope: scope(),
            query: "sum(x)".into(),
            params: QueryParams { lookback_ms: 7, ..QueryParams::range(1, 9, 2) },
            what: Pushable { input: 3, place: (1, 5), partial: true },
            only_if_smaller: true,
        };
        let back = request_from_pb(request_to_pb(&part, pb::Scope::default()), scope()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{part:?}"));
        let labels = |v: &str| Labels::from_pairs([("a", v)]);
        let values = vec![1.5, f64::from_bits(0x7ff4_0000_0000_ab5e), -0.0];
        let row = PushedRow { key: labels("k"), labels: labels("l"), drop_name: true, values };
        let back = row_from_pb(row_to_pb(row.clone())).unwrap();
        let bits = |r: &PushedRow| r.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!((&back.key, &back.labels, bits(&back)), (&row.key, &row.labels, bits(&row)));
        let sent =
            PushedRows { rows: vec![back], infos: vec!["i".into()], samples_read: 4, samples_queryable: 5 };
        let (rows, end) = end_to_pb(Ok(sent.clone()));
        assert_eq!(end_from_pb(end, rows).unwrap().infos, sent.infos);
        let (rows, end) = end_to_pb(Err("no".into()));
        assert_eq!(end_from_pb(end, rows), Err("no".into()));
    }

    #[test]
    fn peers_are_not_trusted() {
        let odd = pb::PushedRow { values: vec![1; 9], ..Default::default() };
        assert!(row_from_pb(odd).is_err());
        assert!(row_from_pb(pb::PushedRow { key: vec!["a".into()], ..Default::default() }).is_err());
        let own = crate::scope::Scope { own: true, ..scope() };
        assert!(request_from_pb(pb::EvaluateRequest::default(), own).is_err());
        let long = pb::EvaluateRequest { query: "x".repeat(QUERY_BYTES_MAX + 1), ..Default::default() };
        assert!(request_from_pb(long, scope()).is_err());
    }
}
