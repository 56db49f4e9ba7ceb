//! A new secret, node by node, while the cluster runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use koios_cluster::{Gossip, GossipOptions, KeyRing};

use crate::house::{House, free_address, ready, record, until};

const OLD: &str = "0123456789abcdef";
const NEW: &str = "fedcba9876543210";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_secret_rolls_through_without_a_lost_member() {
    let house = House::new(Duration::from_millis(200));
    let mut nodes: Vec<(Gossip, Arc<KeyRing>, PathBuf)> = Vec::new();
    let mut seeds = Vec::new();
    for name in ["a", "b", "c"] {
        let path = house.dir.path().join(format!("{name}.secret"));
        std::fs::write(&path, OLD).unwrap();
        let ring = Arc::new(KeyRing::from_file("test", &path).unwrap());
        let listen = free_address();
        let options =
            GossipOptions { ring: ring.clone(), seeds: seeds.clone(), ..house.options(name, listen, 1) };
        seeds.push(listen);
        nodes.push((Gossip::start(options, record("z")).await.unwrap(), ring, path));
    }
    for (g, _, _) in &nodes {
        until(g, "three ready nodes", |v| ready(v) == 3).await;
    }
    // From here on, nobody may lose sight of anybody.
    let least = Arc::new(AtomicUsize::new(3));
    let mut watches = tokio::task::JoinSet::new();
    for (g, _, _) in &nodes {
        let (mut views, least) = (g.subscribe(), least.clone());
        watches.spawn(async move {
            while views.changed().await.is_ok() {
                least.fetch_min(ready(&views.borrow_and_update()), Ordering::Relaxed);
            }
        });
    }
    let mut word = 1;
    for step in [vec![OLD, NEW], vec![NEW, OLD], vec![NEW]] {
        for turned in 0..nodes.len() {
            let (_, ring, path) = &nodes[turned];
            std::fs::write(path, step.join("\n")).unwrap();
            ring.turn(path).unwrap();
            // Everybody still hears everybody: each says something new and all the others repeat it.
            word += 1;
            for (from, (g, _, _)) in nodes.iter().enumerate() {
                g.publish(|r| r.weight = word);
                let name = ["a", "b", "c"][from];
                for (to, _, _) in &nodes {
                    let what = format!("{name}'s word {word} with {step:?} on {} nodes", turned + 1);
                    until(to, &what, |v| v.members[name].record.weight == word).await;
                }
            }
        }
    }
    assert_eq!(least.load(Ordering::Relaxed), 3, "somebody was lost on the way");
    let gone = KeyRing::new("test", &[OLD.to_owned()]);
    let (_, ring, _) = &nodes[0];
    assert!(!ring.verify_rpc_token(&gone.rpc_token(0), 0), "the old secret opens nothing any more");
}
