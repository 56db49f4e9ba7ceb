//! `data.stats`: what a query cost, in Prometheus' shape.
//!
//! Prometheus' stages do not all exist here. Sorting is part of the evaluation and counts as nothing of its
//! own; preparation is the fetching of series.

use koios_model::format::push_json_float;
use koios_promql::QueryStats;
use koios_query::Timings;

use super::params::Params;

/// Said when `stats` is neither `true` nor `all`.
pub const DEPRECATED: &str =
    "stats parameter values other than \"true\" and \"all\" are deprecated; use \"true\" or \"all\"";

/// What the parameter asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    No,
    /// Statistics.
    Yes,
    /// Statistics, in a way that goes out of use.
    Deprecated,
}

/// Reads `stats`: `true` and `all` ask for statistics, and so does anything else that is not empty.
pub fn wanted(params: &Params) -> Wanted {
    match params.first("stats") {
        None => Wanted::No,
        Some("true" | "all") => Wanted::Yes,
        Some(_) => Wanted::Deprecated,
    }
}

/// `,"stats":{…}`, the last member of the data object.
pub fn push(data: &mut String, stats: &QueryStats, timings: &Timings) {
    data.push_str(",\"stats\":{\"timings\":{");
    let run = timings.fetch_ns + timings.eval_ns;
    let fields = [
        ("evalTotalTime", run),
        ("resultSortTime", 0),
        ("queryPreparationTime", timings.fetch_ns),
        ("innerEvalTime", timings.eval_ns),
        ("execQueueTime", timings.queue_ns),
        ("execTotalTime", run + timings.queue_ns),
    ];
    for (i, (name, ns)) in fields.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        data.push_str(&format!("{comma}\"{name}\":"));
        push_json_float(data, *ns as f64 / 1e9);
    }
    data.push_str(&format!(
        "}},\"samples\":{{\"totalQueryableSamples\":{},\"samplesRead\":{},\"peakSamples\":{}}}}}",
        stats.samples_queryable, stats.samples_read, stats.samples_peak
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_go_into_the_data_object() {
        let mut data = String::new();
        let stats =
            QueryStats { samples_read: 3, samples_queryable: 2, samples_peak: 1, ..QueryStats::default() };
        let timings = Timings { queue_ns: 500_000_000, fetch_ns: 1_000_000_000, eval_ns: 2_000_000_000 };
        push(&mut data, &stats, &timings);
        assert_eq!(
            data,
            ",\"stats\":{\"timings\":{\
             \"evalTotalTime\":3,\"resultSortTime\":0,\"queryPreparationTime\":1,\"innerEvalTime\":2,\
             \"execQueueTime\":0.5,\"execTotalTime\":3.5},\"samples\":{\"totalQueryableSamples\":2,\
             \"samplesRead\":3,\"peakSamples\":1}}"
        );
    }

    #[test]
    fn the_parameter() {
        let of = |v: &str| wanted(&Params::new(vec![("stats".to_owned(), v.to_owned())]));
        assert_eq!(
            [of("true"), of("all"), of(""), of("1")],
            [Wanted::Yes, Wanted::Yes, Wanted::No, Wanted::Deprecated]
        );
    }
}
