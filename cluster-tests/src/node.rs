//! One Koios process.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::api::Api;
use crate::binary::koios;
use crate::netns::Space;
use crate::{free_ports, within};

/// How to start a node; kept for restarts.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Name.
    pub name: String,
    /// Address of all three ports.
    pub ip: IpAddr,
    /// HTTP, gRPC and cluster ports.
    pub ports: [u16; 3],
    /// Network that it lives in; this machine's when missing.
    pub space: Option<Arc<Space>>,
    /// Storage.
    pub dir: PathBuf,
    /// Further flags.
    pub args: Vec<String>,
}

impl NodeSpec {
    /// A node with free ports and its own storage below `root`.
    pub fn new(name: &str, root: &Path) -> Self {
        Self::at(name, root, Ipv4Addr::LOCALHOST.into(), free_ports())
    }

    /// A node on given ports, with its own storage below `root`.
    pub fn at(name: &str, root: &Path, ip: IpAddr, ports: [u16; 3]) -> Self {
        Self { name: name.to_owned(), ip, ports, space: None, dir: root.join(name), args: Vec::new() }
    }

    /// Lives in another network.
    pub fn inside(self, space: &Arc<Space>) -> Self {
        Self { space: Some(space.clone()), ..self }
    }

    /// Adds a flag.
    pub fn arg(mut self, flag: impl Into<String>) -> Self {
        self.args.push(flag.into());
        self
    }

    /// Joins another node.
    pub fn join(self, seed: &NodeSpec) -> Self {
        let flag = format!("--join={}", SocketAddr::new(seed.ip, seed.ports[2]));
        self.arg(flag)
    }

    /// Uses a configuration.
    pub fn config(self, path: &Path) -> Self {
        let flag = format!("--config.file={}", path.display());
        self.arg(flag)
    }

    /// HTTP address.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.ports[0])
    }

    /// The command line.
    pub fn command(&self) -> Command {
        let mut c = Command::new(koios());
        let listen = |at: usize| SocketAddr::new(self.ip, self.ports[at]);
        c.arg(format!("--web.listen-address={}", listen(0)))
            .arg(format!("--grpc.listen-address={}", listen(1)))
            .arg(format!("--cluster.listen-address={}", listen(2)))
            .arg(format!("--storage.path={}", self.dir.display()))
            .arg(format!("--node.name={}", self.name))
            .args(&self.args)
            .env_remove("KOIOS_JOIN")
            .current_dir(self.dir.parent().unwrap_or(Path::new("/")))
            .stdin(Stdio::null());
        c
    }

    /// Starts the node; its log goes to a file beside its storage.
    pub fn start(&self) -> Node {
        self.start_with(&[])
    }

    /// Starts the node with further environment variables.
    pub fn start_with(&self, environment: &[(&str, String)]) -> Node {
        std::fs::create_dir_all(&self.dir).expect("storage directory");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("log file");
        let mut command = self.command();
        command.envs(environment.iter().map(|(k, v)| (k, v)));
        command.stdout(log.try_clone().expect("log file")).stderr(log);
        let started = match &self.space {
            Some(space) => space.run(|| command.spawn()),
            None => command.spawn(),
        };
        Node { spec: self.clone(), child: started.expect("koios starts") }
    }

    /// Runs the node to its own end, at most `patience`; what it printed.
    pub fn run_to_end(&self, patience: Duration) -> (Option<ExitStatus>, String) {
        let mut node = self.start();
        let ended = node.wait(patience);
        (ended, node.log())
    }

    fn log_path(&self) -> PathBuf {
        self.dir.with_extension("log")
    }
}

/// A running node; killed when dropped.
pub struct Node {
    /// How it was started.
    pub spec: NodeSpec,
    child: Child,
}

impl Node {
    /// Its API.
    pub fn api(&self) -> Api {
        Api::new(self.spec.http())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.spec.log_path()).unwrap_or_default()
    }

    /// Waits until it answers `/-/ready`.
    pub async fn ready(&self) {
        let api = self.api();
        let waited = within(Duration::from_secs(30), || api.ready()).await;
        assert!(waited.is_ok(), "{} is not ready: {waited:?}\n{}", self.spec.name, self.log());
    }

    /// The most memory it ever had resident, bytes.
    pub fn peak_memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("kilobytes") * 1024
    }

    /// Ends it without warning, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether the process is there.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|s| s.success()), "SIGTERM to {}", self.spec.name);
    }

    /// Waits for its end, at most `patience`.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let start = std::time::Instant::now();
        while start.elapsed() < patience {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- end of the log of {} ---", self.spec.name);
            tail.iter().rev().for_each(|l| eprintln!("{l}"));
        }
    }
}
