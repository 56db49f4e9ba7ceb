//! Who this node is in this start, and that nobody else is it.

use std::fs::File;

use koios_cluster::identity::{Generation, next_generation, node_name};
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
