//! Real processes and their place in the cluster: a gossip task that panics, a copied disk, a new secret.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::{Api, Node, NodeSpec, scratch, until};

const PATIENCE: Duration = Duration::from_secs(60);

async fn metric(api: &Api, name: &str) -> Result<f64, String> {
    let (_, text) = api.get("/metrics", &[]).await?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|v| v.trim().parse().ok()).ok_or_else(|| format!("no {name}"))
}

async fn all_meet(nodes: &[Node], count: usize) {
    for node in nodes {
        let api = node.api();
        until(&format!("{} sees {count}", node.spec.name), PATIENCE, || api.all_ready(count)).await;
    }
}

/// Every node can ask every other one: an answer that misses a part says so.
async fn all_answer(nodes: &[Node]) {
    for node in nodes {
        let api = node.api();
        let what = format!("{} answers for all", node.spec.name);
        until(&what, PATIENCE, || api.vector("no_such_series", now())).await;
    }
}

async fn generation(api: &Api, name: &str) -> Result<String, String> {
    let data = api.data("/api/v1/cluster", &[]).await?;
    let nodes = data["nodes"].as_array().ok_or("no nodes")?;
    let node = nodes.iter().find(|n| n["name"] == name).ok_or("not known")?;
    Ok(node["generation"].to_string())
}

#[tokio::test]
async fn s36_a_gossip_task_that_panics_is_started_again_and_nobody_loses_the_node() {
    let dir = scratch();
    let seed = NodeSpec::new("n0", dir.path());
    let others = ["n1", "n2"].map(|n| NodeSpec::new(n, dir.path()).join(&seed));
    let nodes = [
        seed.start(),
        others[0].start_with(&[(koios_model::failpoint::PANIC_VARIABLE, "gossip receive:100".to_owned())]),
        others[1].start(),
    ];
    // From the start: nobody knows when the hundredth frame comes.
    let watched = nodes[1].api();
    let said = tokio::spawn(async move {
        until("it says that it is not ready", PATIENCE, || async {
            match watched.ready().await {
                Err(why) if why.starts_with("503: Service Unavailable: ") => Ok(why),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    });
    all_meet(&nodes, 3).await;
    let (first, ill) = (nodes[0].api(), nodes[1].api());
    let said = said.await.expect("the watcher");
    assert!(said.contains("gossip task ended"), "while gossip does not run the node is not ready: {said}");
    let before = until("its generation", PATIENCE, || generation(&first, "n1")).await;
    until("the alarm", PATIENCE, || async {
        match metric(&ill, "koios_gossip_task_restarts_total").await? {
            1.0 => Ok(()),
            n => Err(format!("{n} restarts")),
        }
    })
    .await;
    until("gossip runs again", PATIENCE, || async {
        match metric(&ill, "koios_gossip_running").await? {
            1.0 => Ok(()),
            _ => Err("not yet".to_owned()),
        }
    })
    .await;
    assert!(nodes[1].log().contains("gossip task ended"), "{}", nodes[1].log());
    all_meet(&nodes, 3).await;
    all_answer(&nodes).await;
    let after = until("its generation", PATIENCE, || generation(&first, "n1")).await;
    assert_eq!(before, after, "for its peers it is the same process");
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(done.is_ok_and(|s| s.success()), "copy of {}", from.display());
}

#[tokio::test]
async fn s14_the_second_process_on_a_copied_disk_refuses_and_says_why() {
    let dir = scratch();
    let seed = NodeSpec::new("n0", dir.path());
    let first = NodeSpec::new("twin", dir.path()).join(&seed);
    let mut nodes = vec![seed.start(), first.start()];
    all_meet(&nodes, 2).await;
    nodes[1].kill();
    let copied = dir.path().join("copy");
    copy(&first.dir, &copied);
    nodes[1] = first.start();
    all_meet(&nodes, 2).await;
    let second = NodeSpec { dir: copied, ..NodeSpec::new("twin", dir.path()).join(&seed) };
    let (ended, log) = second.run_to_end(PATIENCE);
    assert!(ended.is_some_and(|s| !s.success()), "the second one ends by itself: {log}");
    assert!(log.contains("step identity") && log.contains("--storage.path"), "{log}");
    assert!(nodes[1].running(), "the first one stays: {}", nodes[1].log());
    all_meet(&nodes, 2).await;
}

const OLD: &str = "correct horse battery staple";
const NEW: &str = "another horse battery staple";

fn secret_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.secret"))
}

#[tokio::test]
async fn a_new_secret_rolls_through_three_processes() {
    let dir = scratch();
    let with_secret = |name: &str, secret: &str| {
        let path = secret_of(dir.path(), name);
        std::fs::write(&path, secret).unwrap();
        let spec = NodeSpec::new(name, dir.path()).arg("--web.enable-lifecycle");
        spec.arg(format!("--cluster.secret-file={}", path.display()))
    };
    let seed = with_secret("n0", OLD);
    let specs = [seed.clone(), with_secret("n1", OLD).join(&seed), with_secret("n2", OLD).join(&seed)];
    let nodes: Vec<Node> = specs.iter().map(NodeSpec::start).collect();
    all_meet(&nodes, 3).await;
    for (step, secrets) in [vec![OLD, NEW], vec![NEW, OLD], vec![NEW]].into_iter().enumerate() {
        for (i, node) in nodes.iter().enumerate() {
            std::fs::write(secret_of(dir.path(), &node.spec.name), secrets.join("\n")).unwrap();
            if i == 0 {
                let sent = Command::new("kill").args(["-HUP", &node.pid().to_string()]).status();
                assert!(sent.is_ok_and(|s| s.success()));
            } else {
                let (status, body) = node.api().post_form("/-/reload", "").await.unwrap();
                assert_eq!(status, 200, "{body}");
            }
            let told = format!("the cluster secrets of {} changed", node.spec.name);
            until(&told, PATIENCE, || async {
                let times = node.log().matches("cluster secrets changed").count();
                if times == step + 1 { Ok(()) } else { Err(format!("{times} times")) }
            })
            .await;
        }
        all_answer(&nodes).await;
        all_meet(&nodes, 3).await;
    }
    for node in &nodes {
        let (_, events) = node.api().get("/api/v1/cluster/events", &[]).await.unwrap();
        assert!(!events.contains("→ dead"), "somebody was lost: {events}");
    }
    let (ended, log) = with_secret("late", OLD).join(&seed).run_to_end(PATIENCE);
    assert!(ended.is_some_and(|s| !s.success()) && log.contains("step secret"), "{log}");
    let young = with_secret("young", NEW).join(&seed).start();
    young.ready().await;
}
