//! Processes seen from outside, and directories that go away.
//!
//! Reads `/proc` (proc(5)): on other systems the figures are 0 and the table says so by itself.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Linux counts processor time for user space in hundredths of a second, whatever the kernel does inside.
const TICK_NS: u64 = 10_000_000;

/// A temporary directory, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(what: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("koios-bench-{what}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with the bench.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a program without input and output.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(program: &Path, args: &[String]) -> Result<Self, String> {
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{} does not start: {e}", program.display()))?;
        Ok(Self { child })
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Processor time so far, all threads, user and system; nanoseconds in steps of ten milliseconds.
    pub fn cpu_ns(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The name may hold anything, but it ends with the last parenthesis; user time is field 14.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let times = rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok());
        times.sum::<u64>() * TICK_NS
    }

    /// Resident memory, bytes.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Resident memory of a process, bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// Bytes of all files below a directory.
pub fn dir_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => dir_bytes(&e.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Where a program is, by `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file())
}

/// A loopback port that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_and_ends() {
        let shell = find("sh").unwrap();
        let mut p = Process::start(&shell, &["-c".into(), "while :; do :; done".into()]).unwrap();
        let pid = p.child.id();
        let start = std::thread::spawn(|| ());
        start.join().unwrap();
        while p.cpu_ns() == 0 {
            assert!(p.runs());
            std::thread::yield_now();
        }
        assert!(p.resident_bytes() > 0);
        drop(p);
        assert_eq!(resident_bytes(pid), 0, "it is gone");
    }
}
