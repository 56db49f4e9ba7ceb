//! Time to decode a sample of a usual request: 2,000 series of 10 labels, one sample each.
//!
//! `cargo bench -p koios-remote --bench decode`. Best of many passes; unpacking, the walk in place, and for comparison
//! the generated types alone, which only make strings and check nothing.

use std::hint::black_box;

use koios_model::SystemClock;
use koios_proto::prometheus as pb;
use koios_remote::{Limits, Message as Kind, receiver::decode};
use prost::Message;

#[path = "../tests/support/mod.rs"]
mod support;

const SERIES: usize = 2000;
const PASSES: usize = 200;

fn rows() -> Vec<support::Row> {
    (0..SERIES)
        .map(|i| {
            let name = format!("http_requests_{}_total", i % 40);
            let (instance, pod) =
                (format!("10.0.{}.{}:9090", i / 250, i % 250), format!("web-7f9c6d5b8-{i:05}"));
            let path = format!("/api/v1/items/{}", i % 97);
            let labels = [
                ("__name__", name.as_str()),
                ("cluster", "production-eu-west-1"),
                ("container", "web"),
                ("handler", path.as_str()),
                ("instance", instance.as_str()),
                ("job", "kubernetes-pods"),
                ("method", ["GET", "POST", "PUT"][i % 3]),
                ("namespace", "shop-frontend"),
                ("pod", pod.as_str()),
                ("status", ["200", "404", "500"][i % 3]),
            ];
            let samples = vec![(1_790_000_000_000 + i as i64, i as f64 * 1.5)];
            support::Row { labels: support::owned(&labels), samples, ..support::Row::default() }
        })
        .collect()
}

/// Nanoseconds per sample, the best of all passes.
fn best(mut work: impl FnMut()) -> f64 {
    let clock = SystemClock::shared();
    let mut best = u64::MAX;
    for _ in 0..PASSES {
        let start = clock.mono_ns();
        work();
        best = best.min(clock.mono_ns() - start);
    }
    best as f64 / SERIES as f64
}

fn main() {
    let rows = rows();
    let limits = Limits::default();
    for (kind, bytes) in
        [(Kind::V1, support::to_v1(&rows).encode_to_vec()), (Kind::V2, support::to_v2(&rows).encode_to_vec())]
    {
        let packed = snap::raw::Encoder::new().compress_vec(&bytes).expect("packs");
        let unpacking =
            best(|| drop(black_box(snap::raw::Decoder::new().decompress_vec(black_box(&packed)))));
        let walking = best(|| drop(black_box(decode(kind, black_box(&bytes), &limits))));
        println!(
            "{}: {} B a series, {} B packed; unpack {unpacking:.0} ns, decode {walking:.0} ns a sample",
            kind.as_str(),
            bytes.len() / SERIES,
            packed.len() / SERIES
        );
        if kind == Kind::V1 {
            let generated = best(|| drop(black_box(pb::WriteRequest::decode(black_box(&bytes[..])))));
            println!(
                "generated types, same bytes: {generated:.0} ns a sample, without labels made or checked"
            );
        }
    }
}
