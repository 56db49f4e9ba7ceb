//! What the shard tests share: series by number, reading everything back, a disk that fails on command.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use koios_model::{Clock, Labels, ManualClock, Slot};
use koios_tsdb::{
    AppendBatch, Disk, DiskFile, Entry, HeadView, OsDisk, ReplayReport, SeriesChunks, SeriesKey, Shard,
    ShardOptions,
};

/// Samples by series and time; values as bits.
pub type Model = BTreeMap<(u8, String), BTreeMap<i64, u64>>;

pub fn labels(n: usize) -> Labels {
    let (job, i) = (format!("job{}", n % 3), format!("i{n:03}"));
    Labels::from_pairs([("__name__", "metric"), ("instance", i.as_str()), ("job", job.as_str())])
}

pub fn new_entry(n: usize, t: i64, v: f64) -> Entry {
    Entry { series: SeriesKey::New(Slot((n % 2) as u8), labels(n)), t, v: v.into() }
}

pub fn batch(entries: impl IntoIterator<Item = Entry>) -> AppendBatch {
    AppendBatch { entries: entries.into_iter().collect() }
}

pub fn options(dir: &Path) -> ShardOptions {
    let small = ShardOptions { block_range_ms: 100_000, samples_per_chunk: 8, ..ShardOptions::new(dir, 3) };
    ShardOptions { out_of_order_window_ms: 0, ..small }
}

pub fn far_clock() -> Arc<dyn Clock> {
    ManualClock::at(i64::MAX / 2)
}

pub fn open(dir: &Path) -> (Shard, ReplayReport) {
    Shard::open(options(dir), far_clock()).unwrap()
}

/// Everything in a list of selections, decoded. A time that stands twice keeps the first.
pub fn collect(series: impl IntoIterator<Item = SeriesChunks>, mint: i64, maxt: i64) -> Model {
    let mut out = Model::new();
    for s in series {
        let into = out.entry((s.slot.0, s.labels.to_string())).or_default();
        let columns = s.read(mint, maxt).unwrap();
        columns.iter().for_each(|x| {
            into.entry(x.t).or_insert(x.v.to_bits());
        });
    }
    out.retain(|_, s| !s.is_empty());
    out
}

pub fn everything(view: &HeadView) -> Model {
    collect(view.select(&[], i64::MIN, i64::MAX).unwrap(), i64::MIN, i64::MAX)
}

/// A disk whose writes and syncs fail when told to.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Faults>);

#[derive(Default)]
pub struct Faults {
    /// Bytes until the disk is full; negative for no limit.
    room: AtomicI64,
    limited: AtomicBool,
    pub fail_sync: AtomicBool,
    pub fail_set_len: AtomicBool,
}

impl FaultyDisk {
    pub fn faults(&self) -> &Faults {
        &self.0
    }

    /// Lets the disk take `bytes` more.
    pub fn fill_after(&self, bytes: i64) {
        self.0.room.store(bytes, SeqCst);
        self.0.limited.store(true, SeqCst);
    }

    pub fn free(&self) {
        self.0.limited.store(false, SeqCst);
    }
}

struct FaultyFile(Arc<dyn DiskFile>, Arc<Faults>);

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile(OsDisk.create(path)?, self.0.clone())))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.1.limited.load(SeqCst) {
            return self.0.write_at(bytes, offset);
        }
        let room = self.1.room.load(SeqCst).max(0) as usize;
        let fits = room.min(bytes.len());
        self.0.write_at(&bytes[..fits], offset)?;
        self.1.room.fetch_sub(fits as i64, SeqCst);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        if self.1.fail_sync.load(SeqCst) {
            Err(io::Error::other("input/output error"))
        } else {
            self.0.sync()
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.1.fail_set_len.load(SeqCst) { Err(io::Error::other("gone")) } else { self.0.set_len(len) }
    }
}
