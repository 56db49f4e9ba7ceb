//! Replicated writing with nodes that are played.

use std::collections::{BTreeSet, HashMap};

use koios_cluster::keys::{NodeRecord, NodeState};
use koios_cluster::{Liveness, SoleRange};
use koios_model::{Labels, ManualClock};
use koios_remote::relay::{read_batch, write_outcome};
use koios_remote::{Limits, PushSample, PushSeries, PushValue};
use tokio::sync::Notify;

use super::*;

/// How a played node behaves.
#[derive(Clone)]
enum Role {
    Stores,
    Refuses(Reason),
    Fails,
    /// Stores when told to.
    Waits(Arc<Notify>),
}

/// Nodes by name, and how many samples each of them got.
struct Cast {
    roles: HashMap<String, Role>,
    got: Mutex<HashMap<String, usize>>,
    /// What was said of zones.
    one_zone: Mutex<BTreeSet<bool>>,
}

impl Cast {
    async fn play(&self, name: &str, samples: usize) -> Result<PushOutcome, String> {
        match self.roles.get(name).cloned().unwrap_or(Role::Stores) {
            Role::Fails => return Err("is full".to_owned()),
            Role::Waits(told) => told.notified().await,
            Role::Refuses(why) => {
                let rejected = (0..samples as u32).map(|n| (n, why)).collect();
                return Ok(PushOutcome { rejected, exemplars_rejected: 0 });
            }
            Role::Stores => {}
        }
        *self.got.lock().entry(name.to_owned()).or_default() += samples;
        Ok(PushOutcome::default())
    }
}

#[async_trait]
impl Copies for Cast {
    async fn copy(&self, node: &Member, batch: Vec<u8>, one_zone: bool) -> Result<Vec<u8>, String> {
        let batch = read_batch(&batch, &Limits::default())?;
        self.one_zone.lock().insert(one_zone);
        Ok(write_outcome(&self.play(&node.name, batch.samples.len()).await?))
    }

    fn is_ejected(&self, _: &Member) -> bool {
        false
    }
}

/// The node under test, "n0".
struct Here(Arc<Cast>);

#[async_trait]
impl PushPort for Here {
    async fn push(&self, batch: Arc<PushBatch>) -> Result<PushOutcome, PushError> {
        self.0.play("n0", batch.samples.len()).await.map_err(not_now)
    }
}

fn member(name: &str, zone: &str) -> Member {
    let record = NodeRecord {
        state: NodeState::Ready,
        ..NodeRecord::new(zone, ([127, 0, 0, 1], 2).into(), ([127, 0, 0, 1], 3).into())
    };
    Member {
        name: name.into(),
        generation: 1,
        gossip: ([127, 0, 0, 1], 1).into(),
        liveness: Liveness::Alive,
        record,
    }
}

struct Stage {
    port: Replicated,
    cast: Arc<Cast>,
    sole: Arc<Mutex<SoleTracker>>,
    zone_sole: Arc<Mutex<SoleTracker>>,
    _dir: tempfile::TempDir,
}

fn stage(nodes: usize, roles: &[(&str, Role)]) -> Stage {
    zoned(&vec!["z"; nodes], roles)
}

fn zoned(zones: &[&str], roles: &[(&str, Role)]) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let roles = roles.iter().map(|(n, r)| ((*n).to_owned(), r.clone())).collect();
    let cast = Arc::new(Cast { roles, got: Mutex::default(), one_zone: Mutex::default() });
    let members = zones.iter().enumerate().map(|(i, zone)| Arc::new(member(&format!("n{i}"), zone)));
    let view = ClusterView {
        me: "n0".into(),
        members: members.map(|m| (m.name.clone(), m)).collect(),
        ..ClusterView::default()
    };
    let sole = Arc::new(Mutex::new(SoleTracker::open(dir.path())));
    let zone_sole = Arc::new(Mutex::new(SoleTracker::open_zone(dir.path(), false, 0)));
    let setup = ReplicatedSetup {
        local: Arc::new(Here(cast.clone())),
        peers: cast.clone(),
        views: watch::channel(Arc::new(view)).1,
        sole: sole.clone(),
        zone_sole: zone_sole.clone(),
        clock: ManualClock::at(1_000_000),
        net: Handle::current(),
    };
    Stage { port: Replicated::new(setup), cast, sole, zone_sole, _dir: dir }
}

/// `series` series of two samples each.
fn batch(series: u32) -> Arc<PushBatch> {
    let mut b = PushBatch::default();
    for n in 0..series {
        let labels = Labels::from_pairs([("__name__", "m"), ("n", n.to_string().as_str())]);
        b.series.push(PushSeries { labels, samples: 2 * n..2 * n + 2 });
        b.samples.extend([100, 200].map(|t| PushSample { t, v: PushValue::Float(1.0) }));
    }
    Arc::new(b)
}

impl Stage {
    fn got(&self, name: &str) -> usize {
        self.cast.got.lock().get(name).copied().unwrap_or(0)
    }
}

#[tokio::test]
async fn two_of_three_are_enough_and_the_third_is_not_waited_for() {
    let told = Arc::new(Notify::new());
    let s = stage(3, &[("n2", Role::Waits(told.clone()))]);
    assert_eq!(s.port.push(batch(50)).await, Ok(PushOutcome::default()));
    assert_eq!((s.got("n0"), s.got("n1"), s.got("n2")), (100, 100, 0));
    told.notify_one();
    while s.got("n2") < 100 {
        tokio::task::yield_now().await;
    }
    assert!(s.sole.lock().ranges().is_empty());
}

#[tokio::test]
async fn a_lost_quorum_is_worth_another_try_and_refusals_are_not() {
    let s = stage(3, &[("n1", Role::Fails), ("n2", Role::Fails)]);
    let Err(PushError::Unavailable { why, .. }) = s.port.push(batch(3)).await else { panic!() };
    assert!(why.contains("is full"), "{why}");
    let s = stage(3, &[("n1", Role::Refuses(Reason::TooOld)), ("n2", Role::Refuses(Reason::TooOld))]);
    let refused = s.port.push(batch(3)).await.unwrap().rejected;
    assert_eq!(refused, (0..6).map(|n| (n, Reason::TooOld)).collect::<Vec<_>>());
    let s = stage(3, &[("n1", Role::Refuses(Reason::TooOld)), ("n2", Role::Fails)]);
    assert!(s.port.push(batch(3)).await.is_err(), "one copy, one refusal, one failure: a retry may help");
}

#[tokio::test]
async fn a_spare_stands_in() {
    let s = stage(5, &[("n1", Role::Fails), ("n2", Role::Fails)]);
    assert_eq!(s.port.push(batch(100)).await, Ok(PushOutcome::default()));
    let copies: usize = ["n0", "n3", "n4"].iter().map(|n| s.got(n)).sum();
    assert!((400..=600).contains(&copies), "{copies} copies of 200 samples");
}

#[tokio::test]
async fn the_only_copy_is_noted_first() {
    let alone = [SoleRange { from: 100, until: 200 }];
    let s = stage(1, &[]);
    assert_eq!(s.port.push(batch(1)).await, Ok(PushOutcome::default()));
    assert_eq!(s.sole.lock().ranges(), alone);
    let s = stage(2, &[]);
    assert_eq!(s.port.push(batch(1)).await, Ok(PushOutcome::default()));
    assert_eq!((s.sole.lock().ranges(), s.got("n1")), (&[][..], 2));
    let s = stage(2, &[("n1", Role::Fails)]);
    assert_eq!(s.port.push(batch(1)).await, Ok(PushOutcome::default()));
    assert_eq!(s.sole.lock().ranges(), alone);
    let s = stage(2, &[("n0", Role::Fails)]);
    assert!(s.port.push(batch(1)).await.is_err(), "the other node does not know that it is the only one");
}

#[tokio::test]
async fn holders_are_told_when_all_copies_may_lie_in_one_zone() {
    let far = 4_000_000_000_000;
    for (zones, one_zone) in [(["a", "a", "b", "c"], false), (["a", "a", "b", "b"], true), (["z"; 4], true)] {
        let s = zoned(&zones, &[]);
        let mut b = (*batch(9)).clone();
        b.samples[0].t = far;
        assert_eq!(s.port.push(Arc::new(b)).await, Ok(PushOutcome::default()));
        assert_eq!(*s.cast.one_zone.lock(), BTreeSet::from([one_zone]), "{zones:?}");
        let noted: &[SoleRange] = if one_zone { &[SoleRange { from: 100, until: 200 }] } else { &[] };
        assert_eq!(s.zone_sole.lock().ranges(), noted);
        assert!(s.sole.lock().ranges().is_empty());
    }
}
