//! A node's identity across restarts: its name and its generation.
//!
//! The generation must grow with every start, even when the wall clock went back, or peers would write
//! the old state into the new process. So it is `max(last + 1, now in ns)`, synced to disk before the node
//! joins. Owns the two small files; refuses to guess when they cannot be written.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use koios_model::Clock;

use crate::error::ClusterError;
use crate::secret::hex;

/// Longest name of a node, zone or cluster.
pub const NAME_CHARS_MAX: usize = 63;

/// Checks a name that will travel in gossip.
///
/// # Errors
/// `ClusterError::BadName`.
pub fn check_name(what: &'static str, value: &str) -> Result<(), ClusterError> {
    let ok = !value.is_empty()
        && value.len() <= NAME_CHARS_MAX
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if ok { Ok(()) } else { Err(ClusterError::BadName { what, value: value.to_owned() }) }
}

/// The name kept in `dir`, or a new one like `n-7f3a91` which is kept from now on.
///
/// # Errors
/// When the directory cannot be read or written, or holds a bad name.
pub fn node_name(dir: &Path) -> Result<String, ClusterError> {
    let path = dir.join("node-name");
    if let Some(name) = read_trimmed(&path)? {
        check_name("node name", &name)?;
        return Ok(name);
    }
    let mut random = [0u8; 3];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| state_error(&path, "no randomness"))?;
    let name = format!("n-{}", hex(&random));
    replace_file(&path, &name)?;
    Ok(name)
}

/// What `next_generation` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// To be used by this process.
    pub value: u64,
    /// Whether an earlier process ran on this directory.
    pub restarted: bool,
    /// Generation of the first process on this directory: another one after the disk was lost. 0 when a version that
    /// did not note it began the directory.
    pub born: u64,
}

/// The next generation, synced to disk.
///
/// # Errors
/// When the file cannot be read or written.
pub fn next_generation(dir: &Path, clock: &dyn Clock) -> Result<Generation, ClusterError> {
    let path = dir.join("generation");
    let last = read_trimmed(&path)?.and_then(|t| t.parse::<u64>().ok());
    let now_ns = u64::try_from(clock.now_ms()).unwrap_or(0).saturating_mul(1_000_000);
    let value = last.map_or(now_ns, |l| now_ns.max(l.saturating_add(1)));
    let birth = dir.join("born");
    let born = match last {
        Some(_) => read_trimmed(&birth)?.and_then(|t| t.parse().ok()).unwrap_or(0),
        None => value,
    };
    if last.is_none() {
        replace_file(&birth, &born.to_string())?;
    }
    replace_file(&path, &value.to_string())?;
    Ok(Generation { value, restarted: last.is_some(), born })
}

/// Replaces a small state file whole: after a crash it holds the old text or the new one, and after this the new one.
///
/// # Errors
/// When it cannot be written.
pub fn replace_file(path: &Path, text: &str) -> Result<(), ClusterError> {
    let write = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let tmp = path.with_extension("tmp");
        let mut f = File::create(&tmp)?;
        f.write_all(text.as_bytes())?;
        f.sync_all()?;
        fs::rename(&tmp, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|e| state_error(path, &e.to_string()))
}

fn read_trimmed(path: &Path) -> Result<Option<String>, ClusterError> {
    match fs::read_to_string(path) {
        Ok(t) if t.trim().is_empty() => Ok(None),
        Ok(t) => Ok(Some(t.trim().to_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(state_error(path, &e.to_string())),
    }
}

pub(crate) fn state_error(path: &Path, detail: &str) -> ClusterError {
    ClusterError::State { path: path.display().to_string(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_model::ManualClock;

    #[test]
    fn generation_grows_even_when_the_clock_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(1_700_000_000_000);
        let first = next_generation(dir.path(), &*clock).unwrap();
        clock.step_wall_to(1_600_000_000_000);
        let second = next_generation(dir.path(), &*clock).unwrap();
        assert!(!first.restarted && second.restarted);
        assert_eq!(second.value, first.value + 1);
    }

    #[test]
    fn name_is_kept_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let name = node_name(dir.path()).unwrap();
        assert_eq!(node_name(dir.path()).unwrap(), name);
        for bad in ["", "a b", "a|b", "../x", &"x".repeat(64)] {
            assert!(check_name("zone", bad).is_err(), "{bad}");
        }
    }
}
