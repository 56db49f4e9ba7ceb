//! Making the log durable from another thread.
//!
//! One `sync` covers everything written before it was called, by however many batches: that is the group
//! commit. Invariant: the position reported as durable never runs ahead of what the disk confirmed, and after
//! one failure nothing is confirmed any more, because a kernel that failed to write pages may forget them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};
use crate::error::TsdbError;
use crate::types::Lsn;

#[derive(Default)]
pub(super) struct Files {
    pub(super) current: Option<Arc<dyn DiskFile>>,
    /// Full segments with bytes that no sync has covered.
    pub(super) retired: Vec<Arc<dyn DiskFile>>,
    /// A segment was created since the directory was synced.
    pub(super) new_names: bool,
}

/// What writer and syncers share.
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) files: Mutex<Files>,
    written: AtomicU64,
    durable: AtomicU64,
    /// Held while syncing, so that confirmations come in order.
    syncing: Mutex<()>,
    poison: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn new(dir: PathBuf, disk: Arc<dyn Disk>) -> Self {
        let (files, written, durable, syncing, poison) = Default::default();
        Self { dir, disk, files, written, durable, syncing, poison }
    }

    pub(super) fn poison(&self, why: String) {
        self.poison.lock().get_or_insert(why);
    }

    pub(super) fn check(&self) -> Result<(), TsdbError> {
        match &*self.poison.lock() {
            Some(why) => Err(TsdbError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn set_written(&self, lsn: Lsn) {
        self.written.store(lsn.0, Ordering::Release);
    }
}

/// Makes a shard's log durable. Cloneable; may be used from any thread.
#[derive(Clone)]
pub struct WalSyncer(pub(super) Arc<Shared>);

impl std::fmt::Debug for WalSyncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WalSyncer(durable {:?} of {:?})", self.durable(), self.written())
    }
}

impl WalSyncer {
    /// Syncs everything written so far and answers up to where the log is durable. Blocks for the disk.
    ///
    /// # Errors
    /// `TsdbError::Poisoned` when this or any earlier sync failed; the log must be reopened then.
    pub fn sync(&self) -> Result<Lsn, TsdbError> {
        let _one_at_a_time = self.0.syncing.lock();
        self.0.check()?;
        let target = self.written();
        if target == self.durable() {
            return Ok(target);
        }
        let (files, new_names) = {
            let mut files = self.0.files.lock();
            let mut all = std::mem::take(&mut files.retired);
            all.extend(files.current.clone());
            (all, std::mem::take(&mut files.new_names))
        };
        let names = || if new_names { self.0.disk.sync_dir(&self.0.dir) } else { Ok(()) };
        if let Err(e) = files.iter().try_for_each(|f| f.sync()).and_then(|()| names()) {
            self.0.poison(format!("sync of {} failed: {e}", self.0.dir.display()));
            self.0.check()?;
        }
        self.0.durable.store(target.0, Ordering::Release);
        Ok(target)
    }

    /// Where the log is kept.
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.0.disk
    }

    /// Whether a sync failed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.0.check().is_err()
    }

    /// Up to where the log was written.
    pub fn written(&self) -> Lsn {
        Lsn(self.0.written.load(Ordering::Acquire))
    }

    /// Up to where the log is durable.
    pub fn durable(&self) -> Lsn {
        Lsn(self.0.durable.load(Ordering::Acquire))
    }
}
