//! Network namespaces: made, entered, deleted.
//!
//! Owns names (`koios-<process>-<number>`) and the walk in and out. A thread is moved, never a process: a child that
//! a moved thread starts lives in the namespace and keeps its own process id for signals.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;

const NAMES: &str = "/run/netns";
const PREFIX: &str = "koios-";

/// A namespace; deleted when dropped. It goes on as long as a process is inside.
pub struct Space {
    name: String,
    file: File,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Space {
    /// A new one.
    ///
    /// # Errors
    /// When the system does not permit it.
    pub fn make(number: u32) -> Result<Self, String> {
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        ip(&["netns", "add", &name])?;
        let file = File::open(Path::new(NAMES).join(&name)).map_err(|e| {
            let _ = ip(&["netns", "del", &name]);
            e.to_string()
        })?;
        Ok(Self { name, file })
    }

    /// Moves this thread inside.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn enter(&self) {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .unwrap_or_else(|e| panic!("into namespace {}: {e}", self.name));
    }

    /// Does something inside, on a thread of its own; processes started there stay there.
    ///
    /// # Panics
    /// As the work does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter();
            work()
        };
        std::thread::scope(|s| s.spawn(inside).join()).unwrap_or_else(|e| std::panic::resume_unwind(e))
    }

    /// Runs `ip` on the inside of the namespace.
    ///
    /// # Errors
    /// Its words.
    pub fn ip(&self, args: &[&str]) -> Result<(), String> {
        ip(&[&["-n", &self.name], args].concat())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Where a thread came from; it goes back there when this is dropped.
pub struct Home(File);

impl Home {
    /// The namespace that this thread is in.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn here() -> Self {
        Self(File::open("/proc/thread-self/ns/net").expect("the namespace of this thread"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network));
    }
}

/// Deletes what processes that are gone left behind.
pub fn delete_leftovers() {
    for entry in std::fs::read_dir(NAMES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|r| r.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let out = Command::new("ip").args(args).output().map_err(|e| format!("ip: {e}"))?;
    let words = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    if out.status.success() { Ok(()) } else { Err(format!("ip {}: {words}", args.join(" "))) }
}
