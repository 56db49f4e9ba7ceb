//! Who this node is in this start, and that nobody else is it.

use std::fs::File;

use koios_cluster::Gossip;
use koios_cluster::identity::{Generation, next_generation, node_name, replace_file};
use koios_model::Clock;

use crate::settings::Settings;

/// Name, start and the lock on the data.
pub struct Identity {
    pub name: String,
    pub generation: Generation,
    _lock: File,
}

impl Identity {
    /// Locks the storage and takes the next generation.
    ///
    /// # Errors
    /// What, where and the fix.
    pub fn take(settings: &Settings, clock: &dyn Clock) -> Result<Self, String> {
        let dir = &settings.args.storage_path;
        let fail = |e: std::io::Error| {
            format!("--storage.path {}: {e}; fix: give a directory that this user may write", dir.display())
        };
        std::fs::create_dir_all(dir).map_err(fail)?;
        let lock = File::create(dir.join("lock")).map_err(fail)?;
        lock.try_lock().map_err(|_| {
            format!(
                "step lock: {} is used by another koios; fix: stop it, or give each node its own --storage.path",
                dir.display()
            )
        })?;
        let state = dir.join("cluster");
        let name = match &settings.node_name {
            Some(name) => name.clone(),
            None => node_name(&state).map_err(|e| e.to_string())?,
        };
        let generation = next_generation(&state, clock).map_err(|e| e.to_string())?;
        Ok(Self { name, generation, _lock: lock })
    }

    /// Which log this is, kept beside the logs of the head: another one after a lost disk. The logs must be open.
    ///
    /// # Errors
    /// When it can be neither read nor kept.
    pub fn log_id(&self, settings: &Settings) -> Result<String, String> {
        let path = settings.args.storage_path.join("head").join("log-id");
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("{}: {e}", path.display()));
            }
            _ => {}
        }
        // Generations of a name grow, also without a disk, because they begin with the clock.
        let id = self.generation.value.to_string();
        replace_file(&path, &id).map_err(|e| e.to_string())?;
        Ok(id)
    }
}

/// Waits until another process of this node's name is heard that was there before; what to tell the operator. Two with
/// one name would take each other's targets and each other's place in every answer.
pub async fn displaced(gossip: &Gossip) -> String {
    let mut rival = gossip.rival();
    let node = gossip.view().me.clone();
    match rival.wait_for(|r| r.as_ref().is_some_and(|r| r.i_am_second)).await {
        Ok(other) => {
            let at = other.as_ref().map_or_else(String::new, |r| format!(" at {}", r.gossip));
            format!(
                "step identity: another process{at} runs under the name {node} and was there first; was a storage \
                 directory copied? fix: give each node its own --storage.path, and its own --node.name if one is set"
            )
        }
        // Gossip has ended, and the process with it.
        Err(_) => std::future::pending().await,
    }
}

/// The machine's name.
pub fn hostname() -> String {
    let read = |path: &str| {
        std::fs::read_to_string(path).ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
    };
    read("/proc/sys/kernel/hostname")
        .or_else(|| read("/etc/hostname"))
        .unwrap_or_else(|| "localhost".to_owned())
}
