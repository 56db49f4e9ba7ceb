//! Remote write on this node: whether it is taken, by whom it is kept, what is told about it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use koios_actors::ingest::{LocalPush, Replicated, ReplicatedSetup, declare};
use koios_cluster::{Gossip, SoleTracker};
use koios_model::Clock;
use koios_query::Peers;
use koios_query::ports::Keeper;
use koios_remote::counters::Outcome;
use koios_remote::{Limits, Message, PushPort, Reason, Receiver, relay};
use koios_telemetry::Emitter;
use parking_lot::Mutex;

use crate::settings::Settings;
use crate::wire::Foundation;

/// Whether flag and role let this node take remote write.
pub fn receives(settings: &Settings) -> bool {
    settings.args.web_enable_remote_write_receiver && settings.roles.has("receive")
}

/// The receiver of a node that takes remote write, for itself and its peers.
pub fn receiver(
    settings: &Settings,
    foundation: &Foundation,
    gossip: &Gossip,
    peers: &Arc<Peers>,
) -> Option<Arc<Receiver>> {
    let port = Replicated::new(ReplicatedSetup {
        local: Arc::new(LocalPush::new(foundation.distributor.clone())),
        peers: peers.clone(),
        views: gossip.subscribe(),
        sole: foundation.sole.clone(),
        zone_sole: foundation.zone_sole.clone(),
        clock: foundation.clock.clone(),
        net: foundation.net.clone(),
    });
    receives(settings)
        .then(|| Arc::new(Receiver::new(Arc::new(port), Limits::default(), settings.push_messages.clone())))
}

/// What keeps copies for peers, on a node with the role.
pub fn keeper(settings: &Settings, foundation: &Foundation) -> Option<Arc<dyn Keeper>> {
    let local = LocalPush::new(foundation.distributor.clone());
    let (zone_sole, clock) = (foundation.zone_sole.clone(), foundation.clock.clone());
    settings.roles.has("receive").then(|| Arc::new(Copies { local, zone_sole, clock }) as Arc<dyn Keeper>)
}

/// Copies of what peers were sent.
struct Copies {
    local: LocalPush,
    zone_sole: Arc<Mutex<SoleTracker>>,
    clock: Arc<dyn Clock>,
}

#[async_trait::async_trait]
impl Keeper for Copies {
    async fn keep(&self, batch: Vec<u8>, one_zone: bool) -> Result<Vec<u8>, String> {
        let batch = relay::read_batch(&batch, &Limits::default())?;
        if one_zone {
            declare(&self.zone_sole, &batch, self.clock.now_ms()).map_err(|e| e.to_string())?;
        }
        let outcome = self.local.push(Arc::new(batch)).await.map_err(|e| e.to_string())?;
        Ok(relay::write_outcome(&outcome))
    }
}

/// The messages of `--web.remote-write-receiver.accepted-protobuf-messages`; all when none is named.
///
/// # Errors
/// A text that names the known ones.
pub fn messages(names: &[String]) -> Result<Vec<Message>, String> {
    if names.is_empty() {
        return Ok(Message::ALL.to_vec());
    }
    let one = |name: &String| {
        Message::parse(name.trim()).ok_or_else(|| {
            let known = Message::ALL.map(Message::as_str).join(" and ");
            format!("--web.remote-write-receiver.accepted-protobuf-messages: unknown message {name:?}; fix: known are {known}")
        })
    };
    names.iter().map(one).collect()
}

/// Exports the counts of the receiver.
pub fn export(e: &mut Emitter, receiver: &Receiver) {
    let c = receiver.counters();
    for message in Message::ALL {
        for outcome in Outcome::ALL {
            let labels = [("proto", message.as_str()), ("outcome", outcome.as_str())];
            let n = c.requests(message, outcome) as f64;
            e.counter("koios_remote_write_requests_total", "Remote write requests taken in.", &labels, n);
        }
    }
    for reason in Reason::ALL {
        e.counter(
            "koios_remote_write_samples_rejected_total",
            "Pushed samples that were refused for good.",
            &[("reason", reason.as_str())],
            c.rejected(reason) as f64,
        );
    }
    for (kind, counter) in [("float", &c.floats), ("histogram", &c.histograms)] {
        e.counter(
            "koios_remote_write_samples_total",
            "Pushed samples, refused ones included.",
            &[("type", kind)],
            counter.load(Relaxed) as f64,
        );
    }
    for (name, help, counter) in [
        ("koios_remote_write_unsupported_total", "Requests of an unknown type or encoding.", &c.unsupported),
        ("koios_remote_write_bytes_total", "Bytes of remote write bodies as they were sent.", &c.bytes),
        ("koios_remote_write_exemplars_total", "Pushed exemplars, refused ones included.", &c.exemplars),
        (
            "koios_remote_write_exemplars_rejected_total",
            "Pushed exemplars that were not stored.",
            &c.exemplars_rejected,
        ),
        (
            "koios_remote_write_series_dropped_total",
            "Series of remote write 1.0 dropped because of their labels.",
            &c.dropped_series,
        ),
        (
            "prometheus_api_remote_write_invalid_labels_samples_total",
            "Samples of such series.",
            &c.dropped_samples,
        ),
    ] {
        e.counter(name, help, &[], counter.load(Relaxed) as f64);
    }
    let bytes = receiver.bytes_in_flight() as f64;
    e.gauge("koios_remote_write_bytes_in_flight", "Bytes of the requests being worked on.", &[], bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_by_name() {
        assert_eq!(messages(&[]), Ok(Message::ALL.to_vec()));
        assert_eq!(messages(&["prometheus.WriteRequest".to_owned()]), Ok(vec![Message::V1]));
        let why = messages(&["v3".to_owned()]).unwrap_err();
        assert!(why.contains("\"v3\"") && why.contains("io.prometheus.write.v2.Request"), "{why}");
    }
}
