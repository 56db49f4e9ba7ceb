//! `/federate`: the newest samples of the series that match, for another Prometheus to scrape.
//!
//! As Prometheus gives them, but of the whole cluster: untyped, with their times, sorted by name, external labels and
//! `instance=""` where there are none. Native histograms have no text form and are left out. As with instant queries
//! an answer is whole or an error, unless `partial_response` is true.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use koios_model::{Columns, Labels, Matcher, is_stale};
use koios_query::{Front, QueryError, ReadRequest};

use crate::codec::exposition::{self, Exposition, Point};
use crate::codec::params::Params;
use crate::codec::reply::ApiError;
use crate::lifecycle;
use crate::state::{ApiState, Readiness};

/// Answers GET; errors are plain text.
pub async fn handle(state: web::Data<ApiState>, request: HttpRequest) -> HttpResponse {
    if state.readiness() == Readiness::Starting {
        return lifecycle::not_ready(Readiness::Starting);
    }
    answer(&state, &request).await.unwrap_or_else(|e| e.plain())
}

async fn answer(state: &ApiState, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let params = Params::of_url(request)?;
    let partial = params.partial()?.unwrap_or(false);
    let selectors = params.selectors().map_err(ApiError::bad_data)?;
    let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let form = exposition::negotiate(accept);
    let (front, external) = (state.front.clone(), state.facts.external.clone());
    let (now, patience) = (state.clock.now_ms(), super::read::patience(state));
    let work = async move {
        let newest = newest(&front, selectors, now, partial);
        let newest = tokio::time::timeout(patience, newest).await;
        let mut points = newest.map_err(|_| QueryError::Timeout)??;
        front
            .compute(move || {
                points.sort_by(|a, b| a.labels.cmp(&b.labels));
                points.dedup_by(|a, b| a.labels == b.labels);
                let mut text = Exposition::new(form, &external);
                text.write(points);
                text.finish()
            })
            .await
            .map_err(ApiError::from)
    };
    let body = state.on_net(work).await?;
    Ok(HttpResponse::Ok().content_type(form.content_type()).body(body))
}

/// The newest sample of each series within the lookback. One that several selectors select may be there several times.
async fn newest(
    front: &Front,
    selectors: Vec<Vec<Matcher>>,
    now: i64,
    partial: bool,
) -> Result<Vec<Point>, ApiError> {
    // A sample that is just as old as the lookback does not count.
    let mint = now - front.limits().lookback_ms + 1;
    let mut points = Vec::new();
    for matchers in selectors {
        let question =
            ReadRequest { matchers, mint, maxt: now, bytes_max: front.limits().fetch_bytes_max, partial };
        let (list, _) = front.read(question, &Labels::empty()).await?;
        let found = front.compute(move || {
            let mut found = Vec::with_capacity(list.series.len());
            for series in &list.series {
                let mut samples = Columns::default();
                let looked = series.look(&list.lens, mint, now, &mut samples);
                looked.map_err(|e| ApiError::internal(&format!("{}: {e}", series.labels)))?;
                found.extend(last(series.labels.clone(), &samples));
            }
            Ok::<_, ApiError>(found)
        });
        points.extend(found.await??);
        if points.len() as u64 > front.limits().engine.series_max {
            let max = front.limits().engine.series_max;
            return Err(ApiError::bad_data(format!(
                "match[] selects more than {max} series; fix: federate fewer"
            )));
        }
    }
    Ok(points)
}

/// The last sample, when it is a number.
fn last(labels: Labels, samples: &Columns) -> Option<Point> {
    let at = samples.len().checked_sub(1)?;
    let (t, v) = (samples.times[at], samples.values[at]);
    (samples.histogram(at).is_none() && !is_stale(v)).then_some(Point { labels, t, v })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use koios_model::{FloatHistogram, stale_nan};

    #[test]
    fn the_last_sample_counts_when_it_is_a_number() {
        let of = |values: &[f64]| {
            let mut samples = Columns::default();
            values.iter().enumerate().for_each(|(t, v)| samples.push(t as i64, *v));
            last(Labels::empty(), &samples).map(|p| (p.t, p.v))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[1.0, 2.0]), Some((1, 2.0)));
        assert_eq!(of(&[1.0, stale_nan()]), None);
        let mut samples = Columns::default();
        samples.push(1, 1.0);
        samples.push_histogram(2, Arc::new(FloatHistogram::default()));
        assert!(last(Labels::empty(), &samples).is_none());
    }
}
