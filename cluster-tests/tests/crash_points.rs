//! Two hundred ends of a node in the middle of a write, before a sync, a rename or a removal, while it scrapes, cuts
//! its head, uploads and compacts. After each the node starts without help, has everything that it had
//! acknowledged or shown, and has nothing twice.
//!
//! A chain is one node that is ended again and again over the same storage; blocks last a second, so that each
//! life goes through the whole way of a sample.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use koios_cluster_tests::api::now;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::generate::Rng;
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, acks, scratch};

const CHAINS: u64 = 10;
const ENDS_PER_CHAIN: usize = 20;
const SERIES: usize = 20;
/// A life that does not come to its place within this is ended by `kill -9` from outside.
const LIFE_MAX: Duration = Duration::from_secs(12);
/// Only a torn log is repaired, and then at the start.
const REPAIR_MAX: Duration = Duration::from_secs(2);
/// A node that does not come back within this needs an operator.
const START_MAX: Duration = Duration::from_secs(30);

/// Where lives end, and among how many passes of that place one is chosen.
const PLACES: &[(&str, usize)] = &[
    ("log write", 40),
    ("log sync", 40),
    ("log create", 3),
    ("log directory sync", 3),
    ("log repair", 1),
    ("checkpoint write", 2),
    ("checkpoint sync", 2),
    ("checkpoint rename", 2),
    ("log directory sync", 5),
    ("log removal", 3),
    ("chunks write", 2),
    ("chunks sync", 2),
    ("index write", 2),
    ("index sync", 2),
    ("tombstones write", 2),
    ("tombstones sync", 2),
    ("meta write", 2),
    ("meta sync", 2),
    ("meta rename", 2),
    ("block rename", 2),
    ("block directory sync", 4),
    ("bucket put", 8),
    ("block removal", 3),
    ("removed block clearing", 3),
];

/// Time and value of each sample by series.
type Samples = BTreeMap<String, BTreeMap<i64, u64>>;

/// What the node answers now; `None` while it does not. All series of the target always have the same times.
async fn shown(api: &Api, window: &str) -> Option<Samples> {
    let data = api.query(&format!("probe_value[{window}]"), now() + 1.0).await.ok()?;
    let mut all = Samples::new();
    for series in data["result"].as_array()? {
        let name = series["metric"]["n"].as_str()?.to_owned();
        let values = series["values"].as_array()?;
        let sample = |v: &serde_json::Value| {
            let (t, value) = (v[0].as_f64()?, v[1].as_str()?.parse::<u64>().ok()?);
            Some(((t * 1000.0).round() as i64, value))
        };
        let samples: BTreeMap<i64, u64> = values.iter().filter_map(sample).collect();
        assert_eq!(samples.len(), values.len(), "series {name} has a sample twice");
        assert!(all.insert(name, samples).is_none(), "a series is answered twice");
    }
    for (name, samples) in &all {
        let half = all.values().find(|other| !other.keys().eq(samples.keys()));
        assert!(half.is_none(), "half a scrape is shown: {name} has {samples:?}, another has {half:?}");
    }
    assert!(all.is_empty() || all.len() == SERIES, "half a scrape is shown: {:?}", all.keys());
    Some(all)
}

/// All that was shown or acknowledged must be there, whole.
fn check(now_there: &Samples, seen: &Samples, acked: &BTreeSet<i64>, history: &str) {
    for (name, samples) in seen {
        let there = now_there.get(name).unwrap_or_else(|| panic!("series {name} is gone\n{history}"));
        for (t, value) in samples {
            assert_eq!(there.get(t), Some(value), "series {name} at {t} was shown before\n{history}");
        }
    }
    for (name, there) in now_there {
        let lost: Vec<&i64> = acked.iter().filter(|t| !there.contains_key(t)).collect();
        assert!(lost.is_empty(), "series {name}: acknowledged and lost: {lost:?}\n{history}");
        let mut values: Vec<&u64> = there.values().collect();
        values.dedup();
        assert_eq!(values.len(), there.len(), "series {name}: a scrape is kept at two times\n{history}");
    }
}

struct Chain {
    spec: NodeSpec,
    rng: Rng,
    seen: Samples,
    acked: BTreeSet<i64>,
    /// Where each life ended.
    ends: Vec<String>,
}

impl Chain {
    /// Starts the node so that it ends at a place; checks what it has; watches it until its end.
    async fn live(&mut self, place: &str, nth: usize) {
        let mut node = self.spec.start_with(&[("KOIOS_CRASH_AT", format!("{place}:{nth}"))]);
        let (begun, before) = (Instant::now(), node.log().len());
        let api = node.api();
        let mut checked = false;
        while node.running() {
            let limit = match (checked, place) {
                (true, "log repair") => REPAIR_MAX,
                (true, _) => LIFE_MAX,
                (false, _) => START_MAX,
            };
            if begun.elapsed() > limit {
                assert!(checked, "no answer {limit:?} after the start\n{}", node.log());
                node.kill();
                self.ends.push("kill -9".to_owned());
                return;
            }
            if api.ready().await.is_err() {
                continue;
            }
            if !checked {
                let Some(there) = shown(&api, "1h").await else { continue };
                check(&there, &self.seen, &self.acked, &self.history(&node));
                checked = true;
            }
            self.acked.extend(acks::of(&api).await.into_values().flatten());
            for (name, samples) in shown(&api, "3s").await.into_iter().flatten() {
                self.seen.entry(name).or_default().extend(samples);
            }
        }
        let ended_here =
            node.log().get(before..).is_some_and(|log| log.contains(&format!("failpoint {place}:")));
        assert!(ended_here, "the node ended by itself\n{}", self.history(&node));
        self.ends.push(place.to_owned());
    }

    fn history(&self, node: &Node) -> String {
        let log = node.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        format!("--- ends so far: {:?}\n--- its last words:\n{tail}", self.ends)
    }
}

async fn chain(number: u64) -> Vec<String> {
    let dir = scratch();
    let target = Exporter::start("t", Behaviour::Series(SERIES)).await;
    let config = dir.path().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}\n\
         scrape_configs:\n  - job_name: probe\n    static_configs: [{{targets: ['{}']}}]\n\
         storage: {{tsdb: {{out_of_order_time_window: 0s}}}}\n\
         koios: {{storage: {{block_range: 1s}}, query: {{timeout: 500ms}}}}\n",
        target.addr
    );
    std::fs::write(&config, text).expect("the configuration");
    let spec = NodeSpec::new("n", dir.path()).config(&config);
    let mut chain =
        Chain { spec, rng: Rng::new(number), seen: Samples::new(), acked: BTreeSet::new(), ends: Vec::new() };
    for life in 0..ENDS_PER_CHAIN {
        let (place, passes) = PLACES[(life * CHAINS as usize + number as usize) % PLACES.len()];
        let nth = 1 + chain.rng.below(passes);
        chain.live(place, nth).await;
    }
    // The last life ends well.
    let node = chain.spec.start();
    node.ready().await;
    let there = shown(&node.api(), "1h").await.expect("an answer");
    check(&there, &chain.seen, &chain.acked, &chain.history(&node));
    let samples: usize = there.values().map(BTreeMap::len).sum();
    println!("chain {number}: {} scrapes acknowledged, {samples} samples, all there once", chain.acked.len());
    assert!(chain.acked.len() > ENDS_PER_CHAIN, "hardly anything was acknowledged");
    chain.ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_end_at_any_place_loses_or_doubles_anything() {
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let chains: Vec<u64> = (0..CHAINS).collect();
    for pair in chains.chunks(2) {
        let both: Vec<_> = pair.iter().map(|&n| tokio::spawn(chain(n))).collect();
        for ended in both {
            ended.await.expect("a chain").into_iter().for_each(|place| *ends.entry(place).or_default() += 1);
        }
    }
    println!("{ends:#?}");
    assert_eq!(ends.values().sum::<usize>(), CHAINS as usize * ENDS_PER_CHAIN);
    let missed: Vec<_> =
        PLACES.iter().map(|p| p.0).filter(|p| *p != "log repair" && !ends.contains_key(*p)).collect();
    assert!(missed.is_empty(), "no life ended at {missed:?}");
}
