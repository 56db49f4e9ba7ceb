//! Every gossip key, its writer and its parser. No other file names one.
//!
//! Values are short ASCII, versioned `1|field|field…`; a reader takes the fields it knows and ignores the
//! rest, so newer nodes may append. A value that does not parse counts as absent: readers must live with
//! missing keys anyway, because chitchat fills a state piece by piece after a reset.
//!
//! Bounds: 16 keys a node, 512 bytes a value, 8 sole ranges.

use std::fmt;
use std::net::SocketAddr;

/// Most keys a node may gossip.
pub const KEYS_MAX: usize = 16;
/// Longest value.
pub const VALUE_BYTES_MAX: usize = 512;
/// Longest text of one list of ranges; a value has two of them at most.
const RANGES_BYTES_MAX: usize = 232;
/// Most ranges kept in `SoleRange` lists; older ones are merged.
pub const SOLE_RANGES_MAX: usize = 8;

const VERSION: &str = "v";
const ROLES: &str = "r";
const ZONE: &str = "z";
const ADDRESSES: &str = "a";
const STATE: &str = "s";
const HEAD: &str = "h";
const ZONE_SOLE: &str = "o";
const LOST_ALONE: &str = "x";
const BUCKET: &str = "b";
const RING: &str = "e";
const LOAD: &str = "l";
/// Generation of the process, which outlives a gossip identity.
pub const PROCESS: &str = "g";

/// Keys without which peers cannot use a node at all.
pub const REQUIRED: [&str; 3] = [ROLES, ADDRESSES, STATE];

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    const NAMES: [(&'static str, u8); 6] =
        [("scrape", 1), ("receive", 2), ("store", 4), ("query", 8), ("compact", 16), ("rules", 32)];

    /// Every role.
    pub fn all() -> Self {
        Self(63)
    }

    /// From a comma-separated list; `all` is every role.
    ///
    /// # Errors
    /// The first unknown word.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut bits = 0;
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            match (word, Self::NAMES.iter().find(|(n, _)| *n == word)) {
                ("all", _) => bits |= 63,
                (_, Some((_, bit))) => bits |= bit,
                _ => return Err(word.to_owned()),
            }
        }
        Ok(Self(bits))
    }

    /// Whether a role is held.
    pub fn has(self, name: &str) -> bool {
        Self::NAMES.iter().any(|(n, bit)| *n == name && self.0 & bit != 0)
    }

    /// Names of the roles held.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(n, _)| *n).collect()
    }
}

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// Replaying its log.
    Starting,
    /// Looking for its peers.
    Joining,
    /// Takes part fully.
    Ready,
    /// Hands over; still answers.
    Draining,
    /// Gone in a moment.
    Leaving,
}

impl NodeState {
    const NAMES: [(NodeState, &'static str); 5] = [
        (NodeState::Starting, "starting"),
        (NodeState::Joining, "joining"),
        (NodeState::Ready, "ready"),
        (NodeState::Draining, "draining"),
        (NodeState::Leaving, "leaving"),
    ];

    /// The state's name in gossip and in the API.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(s, _)| *s == self).map_or("starting", |(_, n)| n)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, n)| *n == text).map(|(s, _)| *s)
    }

    /// Whether a node in this state can be asked for any data it reaches.
    pub fn answers(self) -> bool {
        matches!(self, NodeState::Ready | NodeState::Draining | NodeState::Leaving)
    }

    /// Whether a node in this state can be asked for what it alone holds: its log is read, and what it lost is said. A
    /// node that joins can, so that many may join at once without being taken for lost replicas.
    pub fn is_open(self) -> bool {
        self.answers() || self == NodeState::Joining
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stretch of time for which some data may exist on this node only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoleRange {
    /// First millisecond.
    pub from: i64,
    /// Last millisecond; `i64::MAX` while it goes on.
    pub until: i64,
}

impl SoleRange {
    /// All of time.
    pub const EVER: Self = Self { from: i64::MIN, until: i64::MAX };

    /// In time order, those that overlap as one.
    pub fn merged(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.sort_by_key(|r| r.from);
        let mut merged: Vec<Self> = Vec::with_capacity(ranges.len());
        for r in ranges {
            match merged.last_mut() {
                Some(last) if r.from <= last.until => last.until = last.until.max(r.until),
                _ => merged.push(r),
            }
        }
        merged
    }
}

/// The default out-of-order window, and ten minutes for news to spread.
const HEAD_SLACK_MS: i64 = 40 * 60_000;

/// How far the clocks of senders and nodes may be apart, milliseconds.
pub const SKEW_MS: i64 = 600_000;

/// What a node can answer from its own disk and memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadSummary {
    /// No data of this node alone is older, milliseconds; `None` when it holds nothing. Peers see it late, so a node that
    /// takes samples, or will when it is ready, says `HeadSummary::bound`.
    pub min_time: Option<i64>,
    /// Stretches that no second replica covers.
    pub sole: Vec<SoleRange>,
    /// Stretches of which all replicas may lie in this node's zone; those of one replica need not be among them.
    pub zone_sole: Vec<SoleRange>,
    /// log2 of the number of series.
    pub series_log2: u8,
    /// Stretches of which this node lost what it had stored, with its disk or a part of its log. It answers, and is
    /// absent for these.
    pub holes: Vec<SoleRange>,
    /// What of `holes` had no second replica when it was lost.
    pub lost_alone: Vec<SoleRange>,
}

impl HeadSummary {
    /// What a node that takes samples may say of its oldest: those it has (`oldest`) and those that may come before peers
    /// hear of it again, the oldest of which is `window_ms` old at `now_ms`. In steps of `step_ms`, so that it changes
    /// rarely. With the bare minimum a node that is lost right after an older sample came in would be missed for
    /// nothing that is older than what it said last.
    pub fn bound(oldest: Option<i64>, now_ms: i64, window_ms: i64, step_ms: i64) -> i64 {
        let bound = oldest.unwrap_or(i64::MAX).min(now_ms.saturating_sub(window_ms));
        bound.div_euclid(step_ms.max(1)).saturating_mul(step_ms.max(1))
    }
}

/// Everything a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Binary version.
    pub version: String,
    /// `identity::Generation::born` of its storage.
    pub born: u64,
    /// Duties.
    pub roles: Roles,
    /// Capacity units for weighted ownership.
    pub weight: u16,
    /// Failure domain.
    pub zone: String,
    /// gRPC address for peers.
    pub rpc: SocketAddr,
    /// HTTP address.
    pub http: SocketAddr,
    /// State and since when, milliseconds.
    pub state: NodeState,
    /// Since when `state` holds, milliseconds.
    pub since: i64,
    /// Own data.
    pub head: HeadSummary,
    /// Identity of the bucket this node reads and writes.
    pub bucket: String,
    /// Digest of the blocks it sees there; equal digests see the same blocks.
    pub catalogue: u64,
    /// Hash of this node's own view of ready nodes.
    pub ring_hash: u64,
    /// Samples a second that it scrapes, in steps; `None` while it does not know.
    pub load: Option<u32>,
}

impl NodeRecord {
    /// What a node says before it knows anything of itself: every role, an empty head, no bucket, starting.
    pub fn new(zone: &str, rpc: SocketAddr, http: SocketAddr) -> Self {
        Self {
            version: String::new(),
            born: 0,
            roles: Roles::all(),
            weight: 1,
            zone: zone.to_owned(),
            rpc,
            http,
            state: NodeState::Starting,
            since: 0,
            head: HeadSummary::default(),
            bucket: String::new(),
            catalogue: 0,
            ring_hash: 0,
            load: None,
        }
    }

    /// As it is known by hearsay, from a time when the node was not heard by who says so: it may have lost the other zones
    /// since.
    pub fn by_hearsay(mut self) -> Self {
        self.head.zone_sole = vec![SoleRange::EVER];
        self
    }

    /// First moment of which the node may hold samples: what it says is older than what it took since, which may lie
    /// further back by the out-of-order window and by more on a head that was empty. `None` when it takes no samples, for
    /// ever or any more: a head that was drained is empty when it says so.
    pub fn may_hold_from(&self) -> Option<i64> {
        match self.head.min_time {
            Some(t) => Some(t.saturating_sub(HEAD_SLACK_MS)),
            None => self.takes_samples().then_some(i64::MIN),
        }
    }

    /// With what is remembered of a disk that the node lost: it answers for less than it once held.
    pub fn without(mut self, lost: &[SoleRange], lost_alone: &[SoleRange]) -> Self {
        for (own, others) in [(&mut self.head.holes, lost), (&mut self.head.lost_alone, lost_alone)] {
            own.extend(others);
            *own = SoleRange::merged(std::mem::take(own));
        }
        self
    }

    /// Whether samples may still come to this node's head: by its duties, and not while it drains.
    pub fn takes_samples(&self) -> bool {
        let drained = matches!(self.state, NodeState::Draining | NodeState::Leaving);
        !drained && (self.roles.has("receive") || self.roles.has("scrape"))
    }

    /// As key/value pairs for gossip.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let (sole, holes) = (ranges_text(&self.head.sole), ranges_text(&self.head.holes));
        let min = self.head.min_time.map_or_else(|| "none".to_owned(), |t| t.to_string());
        vec![
            (VERSION, format!("1|{}|{}", self.version, self.born)),
            (ROLES, format!("1|{}|{}", self.roles.names().join(","), self.weight)),
            (ZONE, format!("1|{}", self.zone)),
            (ADDRESSES, format!("1|{}|{}|plain", self.rpc, self.http)),
            // Before the holes: who hears of these must have heard what of them is nowhere.
            (LOST_ALONE, format!("1|{}", ranges_text(&self.head.lost_alone))),
            (HEAD, format!("1|{min}|{sole}|{}|{holes}", self.head.series_log2)),
            (ZONE_SOLE, format!("1|{}", ranges_text(&self.head.zone_sole))),
            // News is cut in this order: who hears of a state has heard which data goes with it.
            (STATE, format!("1|{}|{}", self.state, self.since)),
            (BUCKET, format!("1|{}|{:016x}", self.bucket, self.catalogue)),
            (RING, format!("1|{:016x}", self.ring_hash)),
            (LOAD, self.load.map_or_else(|| "1|".to_owned(), |n| format!("1|{n}"))),
        ]
    }

    /// From key/value pairs; `None` when a required key is missing or does not parse.
    pub fn from_lookup<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let fields = |key: &str| -> Option<Vec<&'a str>> {
            let value = get(key).filter(|v| v.len() <= VALUE_BYTES_MAX)?;
            let mut parts = value.split('|');
            (parts.next() == Some("1")).then(|| parts.collect())
        };
        let roles = fields(ROLES)?;
        let addresses = fields(ADDRESSES)?;
        let state = fields(STATE)?;
        let one =
            |key: &str| fields(key).and_then(|f| f.first().map(|s| (*s).to_owned())).unwrap_or_default();
        Some(Self {
            version: one(VERSION),
            born: fields(VERSION).and_then(|f| f.get(1)?.parse().ok()).unwrap_or(0),
            roles: Roles::parse(roles.first()?).ok()?,
            weight: roles.get(1)?.parse::<u16>().ok()?.clamp(1, 10_000),
            zone: one(ZONE),
            rpc: addresses.first()?.parse().ok()?,
            http: addresses.get(1)?.parse().ok()?,
            state: NodeState::parse(state.first()?)?,
            since: state.get(1)?.parse().ok()?,
            head: parse_head(&fields),
            bucket: one(BUCKET),
            catalogue: fields(BUCKET).and_then(|f| u64::from_str_radix(f.get(1)?, 16).ok()).unwrap_or(0),
            ring_hash: u64::from_str_radix(&one(RING), 16).unwrap_or(0),
            load: one(LOAD).parse().ok(),
        })
    }
}

/// The pair that says which start of the process speaks.
pub fn process_pair(generation: u64) -> (&'static str, String) {
    (PROCESS, format!("1|{generation}"))
}

/// What `process_pair` says; `None` for nodes that do not say it.
pub fn parse_process(value: &str) -> Option<u64> {
    let mut fields = value.split('|');
    (fields.next() == Some("1")).then(|| fields.next()?.parse().ok())?
}

/// Leaves out what must not be gossiped: values over `VALUE_BYTES_MAX` and pairs beyond `KEYS_MAX`; and how many. One
/// value that fits into no datagram would hold back everything that its node says after it, for ever.
pub fn within_bounds(pairs: Vec<(&'static str, String)>) -> (Vec<(&'static str, String)>, u64) {
    let all = pairs.len();
    let fits = |(_, value): &(&str, String)| value.len() <= VALUE_BYTES_MAX;
    let kept: Vec<_> = pairs.into_iter().filter(fits).take(KEYS_MAX).collect();
    let blocked = (all - kept.len()) as u64;
    (kept, blocked)
}

fn parse_head<'a>(fields: &impl Fn(&str) -> Option<Vec<&'a str>>) -> HeadSummary {
    let list = |key: &str| fields(key).and_then(|f| parse_ranges(f.first()?));
    // Not heard yet, or not understood: it may hold anything.
    let head = fields(HEAD)
        .and_then(|f| parse_own_head(&f))
        .unwrap_or(HeadSummary { min_time: Some(0), ..HeadSummary::default() });
    HeadSummary {
        // Not said: by a node of before this key, all of whose replicas may lie anywhere.
        zone_sole: list(ZONE_SOLE).unwrap_or_else(|| vec![SoleRange::EVER]),
        // Likewise: one that mixed what it lost with what it holds.
        lost_alone: list(LOST_ALONE).unwrap_or_else(|| head.sole.clone()),
        ..head
    }
}

fn parse_own_head(fields: &[&str]) -> Option<HeadSummary> {
    let min_time = match *fields.first()? {
        "none" => None,
        t => Some(t.parse().ok()?),
    };
    Some(HeadSummary {
        min_time,
        sole: parse_ranges(fields.get(1)?)?,
        series_log2: fields.get(2)?.parse().ok()?,
        // Nodes before this field lose their disks without a word.
        holes: fields.get(3).map_or(Some(Vec::new()), |f| parse_ranges(f))?,
        ..HeadSummary::default()
    })
}

fn ranges_text(ranges: &[SoleRange]) -> String {
    let text = |r: &SoleRange| match r.until {
        i64::MAX => format!("{}-", r.from),
        until => format!("{}-{until}", r.from),
    };
    let mut few = bounded(ranges, SOLE_RANGES_MAX);
    loop {
        let all = few.iter().map(text).collect::<Vec<_>>().join(",");
        if all.len() <= RANGES_BYTES_MAX {
            return all;
        }
        few = bounded(&few, few.len() - 1);
    }
}

fn parse_ranges(field: &str) -> Option<Vec<SoleRange>> {
    let mut ranges = Vec::new();
    for range in field.split(',').filter(|r| !r.is_empty()).take(SOLE_RANGES_MAX) {
        let (from, until) = range.rsplit_once('-')?;
        let until = if until.is_empty() { i64::MAX } else { until.parse().ok()? };
        ranges.push(SoleRange { from: from.parse().ok()?, until });
    }
    Some(ranges)
}

/// At most `most` ranges; the oldest are merged, which may only claim too much, never too little.
fn bounded(ranges: &[SoleRange], most: usize) -> Vec<SoleRange> {
    let mut out = ranges.to_vec();
    while out.len() > most.max(1) {
        let second = out.remove(1);
        out[0].until = out[0].until.max(second.until);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    pub(crate) fn record() -> NodeRecord {
        NodeRecord {
            version: "0.1.0".into(),
            born: 99,
            roles: Roles::parse("scrape,query").unwrap(),
            weight: 3,
            zone: "a".into(),
            rpc: "10.0.0.1:10901".parse().unwrap(),
            http: "[::1]:9090".parse().unwrap(),
            state: NodeState::Draining,
            since: 17,
            head: HeadSummary {
                min_time: Some(-5),
                sole: vec![SoleRange { from: 1, until: 9 }, SoleRange { from: 20, until: i64::MAX }],
                zone_sole: vec![SoleRange { from: 1, until: 30 }],
                series_log2: 12,
                holes: vec![SoleRange { from: i64::MIN, until: 30 }],
                lost_alone: vec![SoleRange { from: 3, until: 4 }],
            },
            bucket: "01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
            catalogue: 7,
            ring_hash: 0xdead_beef,
            load: Some(1234),
        }
    }

    #[test]
    fn only_who_has_the_duty_and_stays_takes_samples() {
        let takes = |roles: &str, state| {
            let roles = Roles::parse(roles).unwrap();
            NodeRecord { roles, state, ..record() }.takes_samples()
        };
        assert!(takes("receive", NodeState::Ready) && takes("scrape,store", NodeState::Starting));
        assert!(!takes("store,query", NodeState::Ready) && !takes("receive", NodeState::Draining));
    }

    #[test]
    fn records_round_trip_within_bounds() {
        let pairs = record().to_pairs();
        assert!(pairs.len() <= KEYS_MAX);
        assert!(pairs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() <= 2048);
        let map: HashMap<_, _> = pairs.iter().map(|(k, v)| (*k, v.as_str())).collect();
        assert_eq!(NodeRecord::from_lookup(|k| map.get(k).copied()), Some(record()));
    }

    #[test]
    fn the_longest_summary_still_fits_into_its_value() {
        let wide: Vec<_> =
            (0..8).map(|i| SoleRange { from: i64::MIN + i, until: i64::MAX - 9 + i }).collect();
        let head = HeadSummary {
            min_time: Some(i64::MIN),
            sole: wide.clone(),
            zone_sole: wide.clone(),
            series_log2: 255,
            holes: wide.clone(),
            lost_alone: wide,
        };
        let pairs = NodeRecord { head, ..record() }.to_pairs();
        assert_eq!(within_bounds(pairs.clone()), (pairs.clone(), 0));
        let map: HashMap<_, _> = pairs.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let read = NodeRecord::from_lookup(|k| map.get(k).copied()).unwrap().head;
        assert_eq!((read.sole[0].from, read.holes[0].from), (i64::MIN, i64::MIN));
        assert_eq!(read.zone_sole[0].from, i64::MIN);
    }

    #[test]
    fn what_is_too_long_or_too_much_is_kept_back() {
        let mut pairs = vec![("a", "x".repeat(VALUE_BYTES_MAX)), ("b", "x".repeat(66_000))];
        pairs.extend((0..KEYS_MAX).map(|_| ("c", String::new())));
        let (kept, blocked) = within_bounds(pairs);
        assert_eq!((kept.len(), blocked), (KEYS_MAX, 2));
        assert!(kept.iter().all(|(k, _)| *k != "b"));
    }

    #[test]
    fn a_head_that_was_not_heard_may_hold_anything() {
        let mut map: HashMap<&str, String> = record().to_pairs().into_iter().collect();
        map.remove("h");
        let head = NodeRecord::from_lookup(|k| map.get(k).map(String::as_str)).unwrap().head;
        assert_eq!((head.min_time, head.zone_sole), (Some(0), record().head.zone_sole));
        map.remove("o");
        let head = NodeRecord::from_lookup(|k| map.get(k).map(String::as_str)).unwrap().head;
        assert_eq!(
            head.zone_sole,
            [SoleRange::EVER],
            "one that does not say it may have everything in one zone"
        );
        assert_eq!(record().by_hearsay().head.zone_sole, [SoleRange::EVER]);
        assert_eq!(parse_process(&process_pair(17).1), Some(17));
        assert_eq!((parse_process("2|1"), parse_process("1|x"), parse_process("")), (None, None, None));
    }

    #[test]
    fn unknown_fields_are_ignored_and_bad_ones_hide_the_node() {
        let mut map: HashMap<&str, String> = record().to_pairs().into_iter().collect();
        map.insert("s", "1|ready|5|future|fields".into());
        map.insert("h", "1|7||3".into());
        let older = NodeRecord::from_lookup(|k| map.get(k).map(String::as_str)).unwrap().head;
        assert_eq!((older.min_time, older.holes.len()), (Some(7), 0));
        map.remove("x");
        map.insert("h", "1|7|5-9|3|1-8".into());
        let older = NodeRecord::from_lookup(|k| map.get(k).map(String::as_str)).unwrap().head;
        assert_eq!(older.lost_alone, older.sole, "one that mixed them");
        assert_eq!(
            NodeRecord::from_lookup(|k| map.get(k).map(String::as_str)).unwrap().state,
            NodeState::Ready
        );
        for bad in ["", "2|ready|5", "1|confused|5", "1|ready|x"] {
            map.insert("s", bad.into());
            assert_eq!(NodeRecord::from_lookup(|k| map.get(k).map(String::as_str)), None, "{bad}");
        }
        assert!(Roles::parse("scrape,cook").is_err());
    }

    #[test]
    fn the_oldest_sample_is_a_bound_for_those_to_come() {
        assert_eq!(HeadSummary::bound(None, 1_000_000, 60_000, 10_000), 940_000);
        assert_eq!(HeadSummary::bound(Some(999_000), 1_000_000, 60_000, 10_000), 940_000);
        assert_eq!(HeadSummary::bound(Some(-5), 1_000_000, 60_000, 10_000), -10_000);
    }

    #[test]
    fn sole_ranges_are_merged_towards_claiming_more() {
        let many: Vec<_> = (0..20).map(|i| SoleRange { from: i * 10, until: i * 10 + 5 }).collect();
        let few = bounded(&many, SOLE_RANGES_MAX);
        assert_eq!(few.len(), SOLE_RANGES_MAX);
        assert_eq!(few[0].from, 0);
        assert!(many.iter().all(|m| few.iter().any(|f| f.from <= m.from && f.until >= m.until)));
    }
}
