//! Balance in a small cluster of pure cores: what it does to loads, and that every slot is scraped all the while.

use super::*;
use crate::handover::{Handover, Step, Wanted};
use crate::ownership::tests::member;
use proptest::prelude::*;

const S: u64 = 1_000_000_000;

/// Nodes that scrape, in one process, with gossip and messages that take a second.
struct Cluster {
    names: Vec<String>,
    zones: usize,
    replicas: u8,
    rates: BTreeMap<u64, f64>,
    balances: Vec<Balance>,
    handovers: Vec<Handover>,
    loads: Vec<Option<u32>>,
    last: BTreeMap<(usize, SlotKey), i64>,
    moved: usize,
    most_given: usize,
}

impl Cluster {
    fn new(nodes: usize, zones: usize, replicas: u8, rates: &[f64]) -> Self {
        Self {
            names: (0..nodes).map(|i| format!("n{i}")).collect(),
            zones,
            replicas,
            rates: rates.iter().enumerate().map(|(i, r)| (i as u64 * 7_919, *r)).collect(),
            balances: (0..nodes).map(|_| Balance::default()).collect(),
            handovers: (0..nodes).map(|_| Handover::default()).collect(),
            loads: vec![None; nodes],
            last: BTreeMap::new(),
            moved: 0,
            most_given: 0,
        }
    }

    fn view(&self, me: usize) -> Arc<ClusterView> {
        let members = self.names.iter().enumerate().map(|(i, n)| {
            let mut m = member(n, &format!("z{}", i % self.zones), 1);
            m.record.load = self.loads[i];
            (n.clone(), Arc::new(m))
        });
        Arc::new(ClusterView {
            me: self.names[me].clone(),
            members: members.collect(),
            ..ClusterView::default()
        })
    }

    fn targets(&self) -> Vec<Wanted> {
        self.rates.keys().map(|key| Wanted { key: *key, interval_ms: 15_000 }).collect()
    }

    /// One second: everybody looks, scrapes and gives.
    fn second(&mut self, now: u64) -> Result<(), TestCaseError> {
        let now_ms = (now / 1_000_000) as i64;
        for i in 0..self.names.len() {
            let (view, targets) = (self.view(i), self.targets());
            let steps =
                self.handovers[i].look_with(now, &view, self.replicas, &targets, &self.balances[i].moves());
            self.tell(steps)?;
            if (now / S).is_multiple_of(15) {
                let running: Vec<SlotKey> = self.handovers[i].running().collect();
                for at in running {
                    self.last.insert((i, at), now_ms);
                    let steps = self.handovers[i].stored(at.0, at.1, now_ms);
                    self.tell(steps)?;
                }
            }
            let held: Vec<Held> = self.handovers[i]
                .running()
                .filter(|(key, slot)| !self.handovers[i].lingers(*key, *slot))
                .map(|(key, slot)| Held {
                    key,
                    slot,
                    rate: self.last.contains_key(&(i, (key, slot))).then(|| self.rates[&key]),
                })
                .collect();
            let offers = self.balances[i].look(now, &view, self.replicas, &held);
            for offer in offers {
                let to = self.names.iter().position(|n| *n == offer.to.name).unwrap();
                let taken = self.balances[to].take(now, &(self.names[i].clone(), 1), &offer.slots);
                let by = (offer.to.name.clone(), offer.to.generation);
                let rate = |at: &SlotKey| (*at, offer.slots.iter().find(|s| s.0 == *at).unwrap().1);
                let taken: Vec<(SlotKey, f64)> = taken.iter().map(rate).collect();
                self.moved += taken.len();
                self.balances[i].taken_by(now, &by, offer.slots.len(), &taken);
            }
            self.loads[i] = self.balances[i].told();
            self.most_given = self.most_given.max(self.balances[i].counts().0);
        }
        Ok(())
    }

    fn tell(&mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        for step in steps {
            match step {
                Step::Tell { to, key, slot, since_ms } => {
                    let to = self.names.iter().position(|n| *n == to).unwrap();
                    let steps = self.handovers[to].covered(key, slot, since_ms);
                    self.tell(steps)?;
                }
                Step::Stop { mark_stale, .. } => prop_assert!(!mark_stale, "nothing vanished"),
                Step::Start { .. } => {}
            }
        }
        Ok(())
    }

    /// How many run each slot.
    fn scrapers(&self) -> BTreeMap<SlotKey, usize> {
        let mut out = BTreeMap::new();
        for h in &self.handovers {
            h.running().for_each(|at| *out.entry(at).or_default() += 1);
        }
        out
    }

    fn run(&mut self, from: u64, to: u64) -> Result<(), TestCaseError> {
        let slots = usize::from(self.replicas).min(self.names.len()) * self.rates.len();
        for s in from..to {
            self.second(s * S)?;
            let scrapers = self.scrapers();
            prop_assert_eq!(scrapers.len(), slots, "a slot is nobody's at {}", s);
            prop_assert!(scrapers.values().all(|n| *n <= 2), "at {s}: {scrapers:?}");
        }
        Ok(())
    }

    fn real_loads(&self) -> Vec<f64> {
        let held =
            |h: &Handover| h.running().filter(|(k, s)| !h.lingers(*k, *s)).map(|(k, _)| self.rates[&k]).sum();
        self.handovers.iter().map(held).collect()
    }
}

#[test]
fn small_targets_leave_the_owner_of_a_huge_one() {
    let mut rates = vec![200.0; 45];
    rates.push(4_000.0);
    let mut c = Cluster::new(3, 1, 1, &rates);
    c.run(0, 16).unwrap();
    let before = c.real_loads();
    let mean = before.iter().sum::<f64>() / 3.0;
    assert!(before.iter().any(|l| *l > OVER * mean), "{before:?} is balanced already");
    c.run(16, 200).unwrap();
    let after = c.real_loads();
    assert!(after.iter().all(|l| *l <= OVER * mean), "{before:?} became {after:?}");
    let moved = c.moved;
    c.run(200, 500).unwrap();
    assert_eq!(c.moved, moved, "it stands still");
    // What was given is asked to stay before its time is over: nothing flaps at ten minutes either.
    c.run(500, 1_500).unwrap();
    assert!(c.real_loads().iter().all(|l| *l <= OVER * mean));
    assert!(c.balances.iter().map(|b| b.counts().0).sum::<usize>() > 0);
}

#[test]
fn quiet_nodes_and_nodes_that_nobody_knows_move_nothing() {
    let mut rates = vec![1.0; 20];
    rates.push(500.0);
    let mut c = Cluster::new(3, 1, 2, &rates);
    c.run(0, 120).unwrap();
    assert_eq!(c.moved, 0, "below the floor");
    let mut b = Balance::default();
    let busy = [Held { key: 1, slot: Slot(0), rate: Some(9_000.0) }];
    assert_eq!(b.look(100 * S, &c.view(0), 2, &busy), [], "the ready nodes are new");
    c.loads[1] = None;
    assert_eq!(b.look(200 * S, &c.view(0), 2, &busy), [], "the load of one is unknown");
}

#[test]
fn a_move_ends_with_its_time_and_with_either_process() {
    let mut rates = vec![200.0; 45];
    rates.push(4_000.0);
    let mut c = Cluster::new(3, 1, 1, &rates);
    c.run(0, 200).unwrap();
    let giver = c.balances.iter().position(|b| b.counts().0 > 0).expect("one that gave");
    let (at, moved) = c.balances[giver].given.iter().next().map(|(at, m)| (*at, m.clone())).unwrap();
    let taker = c.names.iter().position(|n| *n == moved.with.0).unwrap();
    let holder = |b: &Balance| b.moves().holder(at.0, at.1, &c.names[giver]).to_owned();
    assert_eq!(
        (holder(&c.balances[giver]), holder(&c.balances[taker])),
        (moved.with.0.clone(), moved.with.0.clone())
    );
    assert_eq!(c.balances[taker].taken_from(&at).map(|t| t.0), Some(&*c.names[giver]));
    // The taker is another process now.
    let mut view = (*c.view(giver)).clone();
    let mut reborn = (*view.members[&moved.with.0]).clone();
    reborn.generation += 1;
    view.members.insert(moved.with.0.clone(), Arc::new(reborn));
    c.balances[giver].look(201 * S, &Arc::new(view), 1, &[]);
    assert_eq!(holder(&c.balances[giver]), c.names[giver]);
    assert!(c.balances[taker].taken_from(&at).is_some());
    c.balances[taker].forget(moved.until_ns);
    assert!(c.balances[taker].taken_from(&at).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever the targets bring: every slot is scraped at every moment, by two only for a moment, and it comes to rest.
    #[test]
    fn it_comes_to_rest(
        nodes in 2usize..6,
        zones in 1usize..3,
        replicas in 1u8..3,
        rates in proptest::collection::vec(0.0f64..3_000.0, 5..40),
    ) {
        let mut c = Cluster::new(nodes, zones, replicas, &rates);
        c.run(0, 300)?;
        let moved = c.moved;
        c.run(300, 420)?;
        prop_assert!(c.moved <= moved + 1, "{} moves, then {}", moved, c.moved);
        prop_assert!(c.most_given <= rates.len() * 2);
        prop_assert!(c.scrapers().values().filter(|n| **n > 1).count() <= 1);
    }
}
