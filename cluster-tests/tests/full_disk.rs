//! A disk that is full: nothing new is kept then, everything kept is answered, and the node goes on by itself when
//! there is room again. (A disk that turns read-only under open files, which no file system in memory does, is in the
//! storage engine's own tests.)
//!
//! The disk is a small file system in memory, in a mount namespace of the node's own, so it needs root. Without the
//! right to make one the test says that it did not run: a faulty disk is in the storage engine's own tests, too.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::push::{Push, ms, named};
use koios_cluster_tests::{Api, Exporter, NodeSpec, scratch, until};

const DISK: &str = "size=24m";

/// Whether this machine lets a process have file systems of its own.
fn mounts() -> bool {
    let tried = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|s| s.success())
}

/// A node whose storage is a file system of its own; killed when dropped, and the file system goes with it.
struct Boxed {
    child: Child,
    spec: NodeSpec,
}

impl Boxed {
    fn start(spec: &NodeSpec) -> Self {
        std::fs::create_dir_all(&spec.dir).expect("the mount point");
        let node = spec.command();
        let script = "mount -t tmpfs -o \"$1\" koios \"$2\" && shift 2 && exec \"$@\"";
        let mut boxed = Command::new("unshare");
        boxed.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", DISK]).arg(&spec.dir);
        boxed.arg(node.get_program()).args(node.get_args());
        let log = std::fs::File::create(spec.dir.with_extension("log")).expect("the log");
        let child = boxed
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("unshare");
        Self { child, spec: spec.clone() }
    }

    /// Its storage, seen from outside.
    fn inside(&self) -> PathBuf {
        let storage = self.spec.dir.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.child.id())).join(storage)
    }

    /// Writes until there is no room.
    fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.inside().join("filler");
        let mut file = std::fs::File::create(&path).expect("the filler");
        for size in [1 << 16, 1] {
            let block = vec![0u8; size];
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.spec.dir.with_extension("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

/// Samples of one series until a moment.
async fn kept(api: &Api, until: f64) -> Result<f64, String> {
    api.number("sum(count_over_time(probe_value{n=\"7\"}[1h])) or vector(0)", until).await
}

/// Waits until a sample younger than `moment` is there.
async fn goes_on(api: &Api, moment: f64) {
    until("new samples", Duration::from_secs(30), || async {
        let newest =
            api.number("max(max_over_time(timestamp(probe_value{n=\"7\"})[1m:100ms]))", now()).await?;
        if newest > moment { Ok(()) } else { Err(format!("the newest is of {newest}, now is {}", now())) }
    })
    .await;
}

/// Waits until nothing is kept any more; answers how much there is.
async fn stands_still(api: &Api) -> f64 {
    until("writes to be refused", Duration::from_secs(30), || async {
        let before = kept(api, now()).await?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let after = kept(api, now()).await?;
        if before == after { Ok(after) } else { Err(format!("{before} samples became {after}")) }
    })
    .await
}

#[tokio::test]
async fn a_full_disk_stops_writes_and_nothing_else_until_there_is_room() {
    if !mounts() {
        eprintln!("NOT RUN: this machine gives a process no mount namespace of its own (root has one)");
        return;
    }
    let dir = scratch();
    let target = Exporter::start("t", Behaviour::Series(200)).await;
    let config = dir.path().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}\n\
         scrape_configs:\n  - job_name: probe\n    static_configs: [{{targets: ['{}']}}]\n",
        target.addr
    );
    std::fs::write(&config, text).expect("the configuration");
    let node = Boxed::start(&NodeSpec::new("n", dir.path()).config(&config));
    let api = Api::new(node.spec.http());
    until("a ready node", Duration::from_secs(30), || api.ready()).await;
    goes_on(&api, now()).await;

    for round in 0..2 {
        let begun = now();
        let filler = node.fill();
        let before = kept(&api, begun).await.expect("an answer");
        let during = stands_still(&api).await;
        assert!(during >= before, "{before} samples became {during}");
        let data = api.data("/api/v1/targets", &[("state", "active")]).await.expect("targets");
        let shown = data["activeTargets"][0]["lastError"].as_str().unwrap_or_default().to_owned();
        assert!(shown.contains("No space left"), "the target's page says why nothing is kept: {shown:?}");
        let push = || async {
            let names: Vec<String> = (0..500).map(|i| format!("pushed_{i}")).collect();
            Push::v1(names.iter().map(|n| named(n, &[(ms(), 1.0)])).collect()).to(node.spec.http()).await
        };
        // The last pages of a shard's log may have room for a few.
        until("a push to be refused", Duration::from_secs(30), || async {
            match push().await? {
                reply if reply.status == 503 && reply.retry_after.is_some() => Ok(()),
                reply => Err(format!("{reply:?}")),
            }
        })
        .await;
        println!("round {round}: {during} samples stay, {shown:?}");
        std::fs::remove_file(filler).expect("room again");
        goes_on(&api, now()).await;
        assert!(kept(&api, now()).await.expect("an answer") > during, "it goes on");
        until("pushes to be taken", Duration::from_secs(30), || async {
            let reply = push().await?;
            if reply.status == 204 { Ok(()) } else { Err(format!("{reply:?}")) }
        })
        .await;
    }
}
