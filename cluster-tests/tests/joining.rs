//! Nodes find each other from one seed, in any order, and say exactly why when they cannot.

use std::time::{Duration, Instant};

use koios_cluster_tests::{Node, NodeSpec, scratch, until};

const MEET: Duration = Duration::from_secs(5);

async fn all_meet(order: [usize; 3]) {
    let dir = scratch();
    let first = NodeSpec::new("n0", dir.path());
    let specs = [
        first.clone(),
        NodeSpec::new("n1", dir.path()).join(&first),
        NodeSpec::new("n2", dir.path()).join(&first),
    ];
    let nodes: Vec<Node> = order.iter().map(|i| specs[*i].start()).collect();
    let last_start = Instant::now();
    for node in &nodes {
        let api = node.api();
        until(&format!("{} lists three ready nodes", node.spec.name), Duration::from_secs(20), || {
            api.all_ready(3)
        })
        .await;
    }
    let took = last_start.elapsed();
    eprintln!("order {order:?}: three ready nodes everywhere after {took:?}");
    assert!(took < MEET, "took {took:?}, more than {MEET:?} after the last start");
}

#[tokio::test]
async fn the_seed_starts_first() {
    all_meet([0, 1, 2]).await;
}

#[tokio::test]
async fn the_seed_starts_last() {
    all_meet([2, 1, 0]).await;
}

#[tokio::test]
async fn the_seed_starts_in_between_and_joins_itself() {
    let dir = scratch();
    let plain = NodeSpec::new("n0", dir.path());
    let seed = plain.clone().join(&plain);
    let specs =
        [NodeSpec::new("n1", dir.path()).join(&plain), seed, NodeSpec::new("n2", dir.path()).join(&plain)];
    let nodes: Vec<Node> = specs.iter().map(NodeSpec::start).collect();
    for node in &nodes {
        let api = node.api();
        until("three ready nodes", MEET, || api.all_ready(3)).await;
    }
    let api = nodes[0].api();
    until("the page says so too", MEET, || async {
        let text = api.get("/cluster", &[]).await?.1;
        let well = text.contains("all 3 nodes are ready") && text.contains("all views agree (3/3)");
        if well { Ok(()) } else { Err(text) }
    })
    .await;
}

fn says(log: &str, step: &str, fix: &str) {
    assert!(log.contains(step) && log.contains(fix), "want {step:?} and {fix:?} in:\n{log}");
}

#[tokio::test]
async fn every_misfit_names_the_step_and_the_fix() {
    let dir = scratch();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "correct horse battery staple\n").unwrap();
    let other = dir.path().join("other-secret");
    std::fs::write(&other, "wrong horse battery staple\n").unwrap();
    let seed = NodeSpec::new("seed", dir.path()).arg(format!("--cluster.secret-file={}", secret.display()));
    let node = seed.start();
    node.ready().await;
    let patience = Duration::from_secs(15);

    let joiner = |name: &str| NodeSpec::new(name, dir.path()).join(&seed);
    let with_secret = |name: &str| joiner(name).arg(format!("--cluster.secret-file={}", secret.display()));

    let (ended, log) = with_secret("cluster").arg("--cluster.name=other").run_to_end(patience);
    assert!(!ended.expect("it ends by itself").success());
    says(&log, "step cluster name", "--cluster.name=default");

    let (ended, log) = joiner("missing").run_to_end(patience);
    assert!(!ended.expect("it ends by itself").success());
    says(&log, "step secret", "--cluster.secret-file");

    let (ended, log) =
        joiner("wrong").arg(format!("--cluster.secret-file={}", other.display())).run_to_end(patience);
    assert!(!ended.expect("it ends by itself").success());
    says(&log, "another cluster secret", "--cluster.secret-file");

    let mut taken = with_secret("taken");
    taken.ports[0] = seed.ports[0];
    let (ended, log) = taken.run_to_end(patience);
    assert!(!ended.expect("it ends by itself").success());
    says(&log, "step listen: --web.listen-address", "choose another");

    let mut http_seed = seed.clone();
    http_seed.ports[2] = seed.ports[0];
    let (ended, log) = NodeSpec::new("http", dir.path()).join(&http_seed).run_to_end(patience);
    assert!(!ended.expect("it ends by itself").success());
    says(&log, "step greet", "not the HTTP");
}

#[tokio::test]
async fn an_absent_seed_is_waited_for_and_named() {
    let dir = scratch();
    let absent = NodeSpec::new("absent", dir.path());
    let node = NodeSpec::new("waiter", dir.path()).join(&absent).start();
    until("the step and the fix are in the log", Duration::from_secs(10), || {
        let log = node.log();
        async move {
            if log.contains("step connect") && log.contains("fix: start that node") {
                Ok(())
            } else {
                Err(log)
            }
        }
    })
    .await;
    assert!(node.api().ready().await.is_err(), "not ready before it met anybody");
    let (_, cluster) = node.api().get("/api/v1/cluster", &[]).await.unwrap();
    assert!(cluster.contains("\"joining\""), "{cluster}");
    let _late = absent.start();
    node.ready().await;

    let nowhere = NodeSpec::new("nowhere", dir.path()).arg("--join=no-such-host.invalid").start();
    until("the name is said not to resolve", Duration::from_secs(10), || {
        let log = nowhere.log();
        async move { if log.contains("step resolve") { Ok(()) } else { Err(log) } }
    })
    .await;
}

#[tokio::test]
async fn storage_is_used_by_one_process() {
    let dir = scratch();
    let spec = NodeSpec::new("a", dir.path());
    let node = spec.start();
    node.ready().await;
    let mut second = NodeSpec::new("b", dir.path());
    second.dir = spec.dir.clone();
    let ended = second.command().output().expect("koios runs");
    assert!(!ended.status.success());
    says(&String::from_utf8_lossy(&ended.stderr), "step lock", "--storage.path");
}
