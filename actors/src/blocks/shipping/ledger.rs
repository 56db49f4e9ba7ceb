//! What of the log was shipped, under which numbers, and what comes next. Pure but for load and save.
//!
//! Kept beside the log in `shipped.json`, so it is lost exactly when the log is. One that is older than the bucket
//! (a crash between upload and save) is brought up to date by the objects it finds in its way. Invariants: the
//! stretches of a file are shipped in order and without gaps; nothing of a shard's segments is shipped before the
//! checkpoint that they need; an object is given up only when checkpoints that were shipped whole replace all of it.

use std::collections::BTreeMap;
use std::path::Path;

use koios_tsdb::LogFile;
use serde::{Deserialize, Serialize};

use super::FileKey;
use super::bundle::{PARTS_MAX, Part};

/// Name of the file.
pub const FILE: &str = "shipped.json";
/// Bytes of one object, about.
pub const BUNDLE_BYTES: u64 = 8 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shipped {
    file: FileKey,
    upto: u64,
    whole: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Object {
    number: u64,
    files: Vec<FileKey>,
}

/// The account of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Number of the log.
    pub log: u64,
    /// Number of the next object.
    pub next: u64,
    files: Vec<Shipped>,
    objects: Vec<Object>,
}

/// A stretch to ship: file, where it begins, length, whether the file ends with it.
pub type Todo = (FileKey, u64, u32, bool);

impl Ledger {
    /// A log that nothing was shipped of.
    pub fn new(log: u64) -> Self {
        Self { log, ..Self::default() }
    }

    /// Reads what was kept in `dir`; `None` when there is nothing that can be read.
    pub fn load(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok()
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// What the disk says.
    pub fn save(&self, dir: &Path) -> Result<(), String> {
        let (tmp, path) = (dir.join(format!("{FILE}.tmp")), dir.join(FILE));
        let json = serde_json::to_vec(self).expect("BUG: a ledger that is no JSON");
        std::fs::write(&tmp, json)
            .and_then(|()| std::fs::rename(&tmp, &path))
            .map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Whether objects lie in the bucket.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    fn upto(&self, file: FileKey) -> u64 {
        self.files.iter().find(|s| s.file == file).map_or(0, |s| s.upto)
    }

    /// Durable bytes that were not shipped.
    pub fn pending(&self, files: &[(u16, LogFile)]) -> u64 {
        files.iter().map(|(shard, f)| f.bytes.saturating_sub(self.upto(FileKey::of(*shard, f)))).sum()
    }

    /// What the next object holds; empty when all is shipped. `files` as the shards list them.
    pub fn plan(&self, files: &[(u16, LogFile)]) -> Vec<Todo> {
        let (mut todo, mut room) = (Vec::new(), BUNDLE_BYTES);
        for (shard, file) in files {
            let key = FileKey::of(*shard, file);
            let from = self.upto(key);
            let len = file.bytes.saturating_sub(from).min(room);
            if len == 0 {
                continue;
            }
            todo.push((key, from, len as u32, file.closed && from + len == file.bytes));
            room -= len;
            if room == 0 || todo.len() == PARTS_MAX {
                break;
            }
        }
        todo
    }

    /// An object with these stretches lies in the bucket under the next number.
    pub fn shipped(&mut self, parts: &[Part]) {
        let mut files: Vec<FileKey> = Vec::new();
        for part in parts {
            files.push(part.file);
            match self.files.iter_mut().find(|s| s.file == part.file) {
                Some(s) if part.offset <= s.upto => {
                    s.upto = s.upto.max(part.end());
                    s.whole |= part.last;
                }
                None if part.offset == 0 => {
                    self.files.push(Shipped { file: part.file, upto: part.end(), whole: part.last });
                }
                // Behind a gap: of no use, and shipped again.
                _ => {}
            }
        }
        files.sort_unstable();
        files.dedup();
        self.objects.push(Object { number: self.next, files });
        self.next += 1;
    }

    /// Numbers of the objects that nobody needs any more.
    pub fn unnecessary(&self) -> Vec<u64> {
        let newest = self.checkpoints();
        let gone = |f: &FileKey| newest.get(&f.shard).is_some_and(|n| f.replaced_by(*n));
        self.objects.iter().filter(|o| o.files.iter().all(gone)).map(|o| o.number).collect()
    }

    /// All numbers.
    pub fn numbers(&self) -> Vec<u64> {
        self.objects.iter().map(|o| o.number).collect()
    }

    /// Newest checkpoint of each shard that was shipped whole.
    fn checkpoints(&self) -> BTreeMap<u16, u64> {
        let mut newest = BTreeMap::new();
        for s in self.files.iter().filter(|s| s.file.checkpoint && s.whole) {
            let known = newest.entry(s.file.shard).or_insert(s.file.number);
            *known = s.file.number.max(*known);
        }
        newest
    }

    /// The object is gone from the bucket.
    pub fn removed(&mut self, number: u64) {
        self.objects.retain(|o| o.number != number);
        if self.objects.is_empty() {
            self.files.clear();
            return;
        }
        let newest = self.checkpoints();
        let objects = &self.objects;
        self.files.retain(|s| {
            let replaced = newest.get(&s.file.shard).is_some_and(|n| s.file.replaced_by(*n));
            !replaced || objects.iter().any(|o| o.files.contains(&s.file))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_tsdb::LogFileKind::{Checkpoint, Segment};

    fn segment(number: u64, bytes: u64, closed: bool) -> (u16, LogFile) {
        (0, LogFile { kind: Segment, number, bytes, closed })
    }

    fn checkpoint(number: u64, bytes: u64) -> (u16, LogFile) {
        (0, LogFile { kind: Checkpoint, number, bytes, closed: true })
    }

    fn ship(ledger: &mut Ledger, files: &[(u16, LogFile)]) -> Vec<Todo> {
        let todo = ledger.plan(files);
        let part = |t: &Todo| Part { file: t.0, offset: t.1, bytes: t.2, last: t.3, crc: 0 };
        if !todo.is_empty() {
            ledger.shipped(&todo.iter().map(part).collect::<Vec<_>>());
        }
        todo
    }

    #[test]
    fn tails_follow_each_other_and_a_whole_checkpoint_frees_what_it_replaces() {
        let mut ledger = Ledger::new(9);
        let todo = ship(&mut ledger, &[segment(1, 100, true), segment(2, 50, false)]);
        assert_eq!(
            todo.iter().map(|t| (t.1, t.2, t.3)).collect::<Vec<_>>(),
            [(0, 100, true), (0, 50, false)]
        );
        let todo = ship(&mut ledger, &[segment(1, 100, true), segment(2, 80, false)]);
        assert_eq!(todo.iter().map(|t| (t.0.number, t.1, t.2)).collect::<Vec<_>>(), [(2, 50, 30)]);
        assert_eq!(ledger.plan(&[segment(1, 100, true), segment(2, 80, false)]), []);
        assert_eq!(ledger.unnecessary(), [0u64; 0]);
        // A checkpoint larger than an object goes in pieces; only the last one frees anything.
        let files = [checkpoint(3, BUNDLE_BYTES + 5), segment(3, 24, false)];
        assert_eq!(ledger.pending(&files), BUNDLE_BYTES + 29);
        assert_eq!(ship(&mut ledger, &files).len(), 1);
        assert_eq!(ledger.unnecessary(), [0u64; 0]);
        assert_eq!(ship(&mut ledger, &files).len(), 2);
        assert_eq!(ledger.unnecessary(), [0, 1]);
        ledger.removed(0);
        ledger.removed(1);
        assert_eq!(ledger.numbers(), [2, 3]);
        assert_eq!(ledger.pending(&files), 0);
        let dir = tempfile::tempdir().unwrap();
        ledger.save(dir.path()).unwrap();
        assert_eq!(Ledger::load(dir.path()), Some(ledger));
    }
}
