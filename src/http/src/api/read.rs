//! `/api/v1/read`: remote read, samples of the whole cluster for those who evaluate themselves.
//!
//! Owns how many are answered at a time and how an answer leaves; questions and formats are those of `koios-remote`.
//! As with instant queries an answer is whole or an error that says what is missing, unless `partial_response` is true.
//! Bounds: all queries of a request together fetch no more than one query of the API may.

use std::convert::identity;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, ContentEncoding, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures::{StreamExt, stream};
use koios_model::{Columns, Labels};
use koios_query::merge::{MergedList, MergedSeries};
use koios_query::{Front, Gap, Lens, QueryError};
use koios_remote::read::request::BODY_BYTES_MAX;
use koios_remote::read::{
    Frames, Kind, ReadError, ReadQuery, ReadRequest, SAMPLES_MAX, SamplesAnswer, frames,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::codec::params::Params;
use crate::codec::reply::ApiError;
use crate::state::ApiState;

/// Requests that are answered at a time: Prometheus' `--storage.remote.read-concurrent-limit`. Others wait.
pub const READS_MAX: usize = 10;
/// Bytes of frames that are made at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Names what a partial answer lacks: its formats have no place for that.
const MISSING: &str = "x-koios-missing";

/// Answers a request; errors are plain text.
pub async fn handle(state: web::Data<ApiState>, request: HttpRequest, body: web::Payload) -> HttpResponse {
    answer(&state, &request, body).await.unwrap_or_else(|e| e.plain())
}

async fn answer(
    state: &web::Data<ApiState>,
    request: &HttpRequest,
    body: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let partial = Params::of_url(request)?.partial()?.unwrap_or(false);
    let bad = |e: ReadError| ApiError::bad_data(e.to_string());
    let asked = ReadRequest::open(&collect(body).await?).map_err(bad)?;
    let place = place(state).await?;
    let (front, external) = (state.front.clone(), state.facts.external.clone());
    let (queries, kind) = (asked.queries, asked.kind);
    let patience = patience(state);
    let fetching = async move {
        let selecting = select(&front, queries, &external, partial);
        tokio::time::timeout(patience, selecting).await.map_err(|_| QueryError::Timeout)?
    };
    let (found, gaps) = state.on_net(fetching).await?;
    let mut response = match kind {
        Kind::Samples => in_one(state, found).await?,
        Kind::Chunks => in_frames(state, found, place).await?,
    };
    if !gaps.is_empty() {
        let words: Vec<String> = gaps.iter().take(5).map(Gap::to_warning).collect();
        let value =
            HeaderValue::from_str(&words.join("; ").replace(|c: char| !(' '..='~').contains(&c), "?"));
        let value = value.unwrap_or(HeaderValue::from_static("something"));
        response.headers_mut().insert(header::HeaderName::from_static(MISSING), value);
    }
    Ok(response)
}

async fn collect(mut body: web::Payload) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|e| ApiError::bad_data(format!("the body broke off: {e}")))?;
        if bytes.len() + piece.len() > BODY_BYTES_MAX {
            let e = ReadError::TooMuch { what: "bytes", max: BODY_BYTES_MAX };
            return Err(ApiError::bad_data(e.to_string()));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// How long a request waits for its place, and then for all that it fetches: each as long as a query would.
pub(super) fn patience(state: &ApiState) -> Duration {
    Duration::from_millis(state.front.limits().timeout_ms)
}

async fn place(state: &ApiState) -> Result<OwnedSemaphorePermit, ApiError> {
    let (patience, place) = (patience(state), state.reads.clone().acquire_owned());
    match state.on_net(async move { Ok::<_, ApiError>(tokio::time::timeout(patience, place).await) }).await? {
        Ok(Ok(place)) => Ok(place),
        _ => Err(ApiError::unavailable(format!(
            "{READS_MAX} remote reads are being answered and none ended in time; ask again"
        ))),
    }
}

/// What one query found.
struct Found {
    mint: i64,
    maxt: i64,
    lens: Lens,
    series: Vec<MergedSeries>,
}

async fn select(
    front: &Front,
    queries: Vec<ReadQuery>,
    external: &Labels,
    partial: bool,
) -> Result<(Vec<Found>, Vec<Gap>), ApiError> {
    let mut bytes_left = front.limits().fetch_bytes_max;
    let (mut all, mut gaps) = (Vec::with_capacity(queries.len()), Vec::new());
    for ReadQuery { mint, maxt, matchers } in queries {
        let mut list = MergedList::default();
        if mint <= maxt {
            let question = koios_query::ReadRequest { matchers, mint, maxt, bytes_max: bytes_left, partial };
            let (found, missing) = front.read(question, external).await?;
            let bytes: usize = found.series.iter().map(MergedSeries::chunk_bytes).sum();
            bytes_left = bytes_left.saturating_sub(bytes as u64);
            gaps.extend(missing);
            list = found;
        }
        all.push(Found { mint, maxt, lens: list.lens, series: list.series });
    }
    gaps.dedup();
    Ok((all, gaps))
}

impl Found {
    fn samples(&self, series: &MergedSeries) -> Result<Columns, String> {
        let mut samples = Columns::default();
        let looked = series.look(&self.lens, self.mint, self.maxt, &mut samples);
        looked.map_err(|e| format!("{}: {e}", series.labels))?;
        Ok(samples)
    }
}

/// The whole answer in one snappy block.
async fn in_one(state: &ApiState, found: Vec<Found>) -> Result<HttpResponse, ApiError> {
    let bytes_max = state.front.limits().fetch_bytes_max;
    let encode = move || {
        let mut answer = SamplesAnswer::new(SAMPLES_MAX, bytes_max);
        for mut one in found {
            for series in std::mem::take(&mut one.series) {
                let samples = one.samples(&series).map_err(|e| ApiError::internal(&e))?;
                if !samples.is_empty() {
                    answer.push(&series.labels, &samples).map_err(|e| ApiError::bad_data(e.to_string()))?;
                }
            }
            answer.end_query();
        }
        answer.finish().map_err(|e| ApiError::bad_data(e.to_string()))
    };
    let front = state.front.clone();
    let packed =
        state.on_net(async move { front.compute(encode).await.map_err(ApiError::from).and_then(identity) });
    Ok(HttpResponse::Ok()
        .content_type("application/x-protobuf")
        .insert_header((header::CONTENT_ENCODING, "snappy"))
        .body(packed.await?))
}

/// Makes frames piece by piece as the client takes them.
struct Pump {
    found: std::iter::Enumerate<std::vec::IntoIter<Found>>,
    at: Option<(usize, Found)>,
    series: std::vec::IntoIter<MergedSeries>,
    _place: OwnedSemaphorePermit,
}

impl Pump {
    /// The next frames, some more than `PIECE_BYTES`; nothing at the end.
    fn piece(&mut self) -> Result<Vec<u8>, String> {
        let frames = Frames::default();
        let mut out = Vec::with_capacity(PIECE_BYTES * 2);
        while out.len() < PIECE_BYTES {
            let Some((query, found)) = &self.at else { break };
            let Some(series) = self.series.next() else {
                self.at = self.found.next();
                self.series = self
                    .at
                    .as_mut()
                    .map(|(_, f)| std::mem::take(&mut f.series))
                    .unwrap_or_default()
                    .into_iter();
                continue;
            };
            match series.whole_chunks(found.mint, found.maxt) {
                Some(chunks) if frames::can_be_sent(&chunks) => {
                    frames.put(&mut out, *query, &series.labels, &chunks);
                }
                _ => frames.put_samples(&mut out, *query, &series.labels, &found.samples(&series)?),
            }
        }
        Ok(out)
    }
}

async fn in_frames(
    state: &web::Data<ApiState>,
    found: Vec<Found>,
    place: OwnedSemaphorePermit,
) -> Result<HttpResponse, ApiError> {
    let mut found = found.into_iter().enumerate();
    let mut at = found.next();
    let series = at.as_mut().map(|(_, f)| std::mem::take(&mut f.series)).unwrap_or_default().into_iter();
    let pump = Pump { found, at, series, _place: place };
    let (pump, first) = pumped(state, pump).await?;
    let mut response = HttpResponse::Ok();
    response.content_type(frames::CONTENT_TYPE).insert_header(ContentEncoding::Identity);
    if first.is_empty() {
        return Ok(response.finish());
    }
    let rest = stream::unfold((state.clone(), Some(pump)), |(state, pump)| async move {
        match pumped(&state, pump?).await {
            Ok((_, piece)) if piece.is_empty() => None,
            Ok((pump, piece)) => Some((Ok(Bytes::from(piece)), (state, Some(pump)))),
            // The answer breaks off, so that nobody takes it for whole.
            Err(e) => Some((Err(std::io::Error::other(e.message)), (state, None))),
        }
    });
    Ok(response.streaming(stream::once(async move { Ok(Bytes::from(first)) }).chain(rest)))
}

async fn pumped(state: &ApiState, mut pump: Pump) -> Result<(Pump, Vec<u8>), ApiError> {
    let front: Arc<Front> = state.front.clone();
    let work = move || pump.piece().map(|piece| (pump, piece)).map_err(|e| ApiError::internal(&e));
    state.on_net(async move { front.compute(work).await.map_err(ApiError::from).and_then(identity) }).await
}
