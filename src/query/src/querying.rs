//! Thanos' Query service: PromQL over gRPC, for queriers that hand whole queries or parts of them on.
//!
//! Owns what its messages mean for a query of the front, and how a result becomes messages: each series is a time series, warnings come
//! first and costs last. Times are whole seconds, as the messages have them. A plan beside the text of the query is not read: the text
//! says the same. Refuses a result that is a text, which the messages cannot carry. Bound: `POINTS_MAX` steps, as over HTTP; all else is
//! bounded by the front.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use koios_model::histogram::CounterReset;
use koios_model::{FloatHistogram, Labels};
use koios_promql::{SampleValue, Value};
use koios_proto::prometheus as wire;
use koios_proto::thanos as pb;
use koios_proto::thanos::query_server::{Query, QueryServer};
use koios_store::storeapi::matchers_from_pb;
use koios_store::storeapi::server::shard_from_pb;
use tonic::{Request, Response, Status};

use crate::completeness::Gap;
use crate::front::{Front, QueryRequest, QueryResponse};
use crate::server::status;
use crate::terms::{Resolution, Terms};

/// Most steps of a range.
const POINTS_MAX: i64 = 11_000;
/// Most series in a batch.
const BATCH_MAX: usize = 1000;

/// Answers queries.
pub struct QueryService {
    front: Arc<Front>,
}

type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl QueryService {
    /// Over a front.
    pub fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    /// As a service of a gRPC server.
    pub fn into_server(self) -> QueryServer<Self> {
        QueryServer::new(self).max_encoding_message_size(usize::MAX)
    }
}

fn ms(seconds: i64, what: &str) -> Result<i64, Status> {
    let wrong = || Status::invalid_argument(format!("{what}: {seconds} seconds are too many"));
    seconds.checked_mul(1000).ok_or_else(wrong)
}

// Both kinds of questions and of answers have these fields, in messages of different types.
macro_rules! common {
    ($r:ident) => {
        Common {
            query: $r.query,
            timeout_seconds: $r.timeout_seconds,
            max_resolution_seconds: $r.max_resolution_seconds,
            lookback_delta_seconds: $r.lookback_delta_seconds,
            replica_labels: $r.replica_labels,
            store_matchers: $r.store_matchers,
            shard_info: $r.shard_info,
            enable_dedup: $r.enable_dedup,
            enable_partial_response: $r.enable_partial_response,
        }
    };
}

macro_rules! as_result {
    ($part:ident, $kind:ident) => {
        match $part {
            Part::Warning(w) => $kind::Warnings(w),
            Part::Series(s) => $kind::Timeseries(s),
            Part::Batch(series) => $kind::TimeseriesBatch(pb::TimeSeriesBatch { series }),
            Part::Stats(s) => $kind::Stats(s),
        }
    };
}

/// What both kinds of questions have in common.
struct Common {
    query: String,
    timeout_seconds: i64,
    max_resolution_seconds: i64,
    lookback_delta_seconds: i64,
    replica_labels: Vec<String>,
    store_matchers: Vec<pb::StoreMatchers>,
    shard_info: Option<pb::ShardInfo>,
    enable_dedup: bool,
    enable_partial_response: bool,
}

impl Common {
    fn request(self, (start_ms, end_ms, step_ms): (i64, i64, i64)) -> Result<QueryRequest, Status> {
        let stores: Result<Vec<_>, Status> =
            self.store_matchers.iter().map(|m| matchers_from_pb(&m.label_matchers)).collect();
        let lookback_ms = ms(self.lookback_delta_seconds, "lookback_delta_seconds")?;
        let timeout_ms = ms(self.timeout_seconds, "timeout_seconds")?;
        Ok(QueryRequest {
            query: self.query,
            start_ms,
            end_ms,
            step_ms,
            lookback_ms: (lookback_ms > 0).then_some(lookback_ms),
            timeout_ms: u64::try_from(timeout_ms).ok().filter(|ms| *ms > 0),
            partial: Some(self.enable_partial_response),
            terms: Terms {
                resolution: Resolution::Fixed(ms(
                    self.max_resolution_seconds.max(0),
                    "max_resolution_seconds",
                )?),
                replica_labels: (!self.replica_labels.is_empty()).then_some(self.replica_labels),
                apart: !self.enable_dedup,
                stores: stores?,
                shard: shard_from_pb(self.shard_info)?,
                named: true,
            },
        })
    }
}

/// One part of an answer.
enum Part {
    Warning(String),
    Series(wire::TimeSeries),
    Batch(Vec<wire::TimeSeries>),
    Stats(pb::QueryStats),
}

fn parts(response: QueryResponse, batch: i64) -> Result<Vec<Part>, Status> {
    let QueryResponse { output, gaps, .. } = response;
    let series = all_series(output.value)?;
    let warnings = gaps.iter().map(Gap::to_warning).chain(output.warnings).chain(output.infos);
    let mut parts: Vec<Part> = warnings.map(Part::Warning).collect();
    match usize::try_from(batch).unwrap_or(0).min(BATCH_MAX) {
        0 | 1 => parts.extend(series.into_iter().map(Part::Series)),
        size => {
            let mut series = series.into_iter().peekable();
            while series.peek().is_some() {
                parts.push(Part::Batch(series.by_ref().take(size).collect()));
            }
        }
    }
    let cost = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let (samples_total, peak_samples) =
        (cost(output.stats.samples_queryable), cost(output.stats.samples_peak));
    parts.push(Part::Stats(pb::QueryStats { samples_total, peak_samples }));
    Ok(parts)
}

fn all_series(value: Value) -> Result<Vec<wire::TimeSeries>, Status> {
    Ok(match value {
        Value::Scalar(t, v) => vec![time_series(&Labels::empty(), [(t, v)].into_iter(), &[])],
        Value::String(..) => {
            return Err(Status::invalid_argument("the result is a text, which this service cannot answer"));
        }
        Value::Vector(samples) => {
            let one = |s: &koios_promql::VectorSample| match &s.value {
                SampleValue::Float(v) => time_series(&s.labels, [(s.t_ms, *v)].into_iter(), &[]),
                SampleValue::Histogram(h) => {
                    time_series(&s.labels, std::iter::empty(), &[(s.t_ms, h.clone())])
                }
            };
            samples.iter().map(one).collect()
        }
        Value::Matrix(all) => {
            all.iter().map(|s| time_series(&s.labels, s.floats.iter(), &s.histograms)).collect()
        }
    })
}

fn time_series(
    labels: &Labels,
    floats: impl Iterator<Item = (i64, f64)>,
    histograms: &[(i64, Arc<FloatHistogram>)],
) -> wire::TimeSeries {
    let label = |(name, value): (&str, &str)| wire::Label { name: name.to_owned(), value: value.to_owned() };
    wire::TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: floats.map(|(timestamp, value)| wire::Sample { value, timestamp }).collect(),
        histograms: histograms.iter().map(|(t, h)| histogram(*t, h)).collect(),
        ..wire::TimeSeries::default()
    }
}

fn histogram(timestamp: i64, h: &FloatHistogram) -> wire::Histogram {
    use wire::histogram::{Count, ResetHint, ZeroCount};
    let spans = |side: &koios_model::histogram::Buckets| {
        side.spans.iter().map(|s| wire::BucketSpan { offset: s.offset, length: s.length }).collect()
    };
    let hint = match h.hint {
        CounterReset::Unknown => ResetHint::Unknown,
        CounterReset::Reset => ResetHint::Yes,
        CounterReset::NotReset => ResetHint::No,
        CounterReset::Gauge => ResetHint::Gauge,
    };
    wire::Histogram {
        count: Some(Count::CountFloat(h.count)),
        zero_count: Some(ZeroCount::ZeroCountFloat(h.zero_count)),
        sum: h.sum,
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        negative_spans: spans(&h.negative),
        negative_counts: h.negative.counts.clone(),
        positive_spans: spans(&h.positive),
        positive_counts: h.positive.counts.clone(),
        reset_hint: hint.into(),
        timestamp,
        custom_values: h.custom_values.to_vec(),
        ..wire::Histogram::default()
    }
}

#[tonic::async_trait]
impl Query for QueryService {
    type QueryStream = Parts<pb::QueryResponse>;
    type QueryRangeStream = Parts<pb::QueryRangeResponse>;

    async fn query(&self, request: Request<pb::QueryRequest>) -> Result<Response<Self::QueryStream>, Status> {
        use pb::query_response::Result as Out;
        let r = request.into_inner();
        let time = ms(r.time_seconds, "time_seconds")?;
        let common = common!(r);
        let answer = self.front.query(common.request((time, time, 0))?).await.map_err(|e| status(&e))?;
        let out = |part| Ok(pb::QueryResponse { result: Some(as_result!(part, Out)) });
        Ok(Response::new(Box::pin(stream::iter(parts(answer, r.response_batch_size)?.into_iter().map(out)))))
    }

    async fn query_range(
        &self,
        request: Request<pb::QueryRangeRequest>,
    ) -> Result<Response<Self::QueryRangeStream>, Status> {
        use pb::query_range_response::Result as Out;
        let r = request.into_inner();
        let (start, end) =
            (ms(r.start_time_seconds, "start_time_seconds")?, ms(r.end_time_seconds, "end_time_seconds")?);
        let step = ms(r.interval_seconds, "interval_seconds")?;
        if step <= 0 || end < start || end.saturating_sub(start) / step > POINTS_MAX {
            let want =
                format!("want start <= end, an interval of a second or more, and at most {POINTS_MAX} steps");
            return Err(Status::invalid_argument(want));
        }
        let common = common!(r);
        let answer = self.front.query(common.request((start, end, step))?).await.map_err(|e| status(&e))?;
        let out = |part| Ok(pb::QueryRangeResponse { result: Some(as_result!(part, Out)) });
        Ok(Response::new(Box::pin(stream::iter(parts(answer, r.response_batch_size)?.into_iter().map(out)))))
    }
}
