//! What a target says about its metric families: type, help, unit. Kept for ten scrapes after it was last
//! said, at most `FAMILIES_MAX` families, help texts cut at `HELP_MAX` bytes.
//!
//! Targets say the same things in the same order every time, so each line is first compared, by hash, with
//! the line that stood there in the previous scrape.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::parse::{Kind, Metadata};

/// Families of one target.
const FAMILIES_MAX: usize = 100_000;
/// Bytes of a help text.
const HELP_MAX: usize = 4096;
/// Scrapes after which a family that is no longer mentioned is forgotten.
const KEEP_SCRAPES: u32 = 10;

/// One family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// `TYPE`
    pub kind: Kind,
    /// `HELP`
    pub help: String,
    /// `UNIT`
    pub unit: String,
    seen: u32,
}

/// Families of a target, for its scrape loop and for whoever shows them.
pub type SharedFamilies = Arc<Mutex<FamilyTable>>;

/// Families by name.
#[derive(Clone, Debug, Default)]
pub struct FamilyTable {
    families: Vec<Family>,
    by_name: HashMap<String, u32>,
    scrape: u32,
    /// Hash and family of each line of the previous scrape, and of this one.
    lines: Vec<(u64, u32)>,
    next: Vec<(u64, u32)>,
}

impl FamilyTable {
    /// Starts a scrape.
    pub(super) fn begin(&mut self) {
        self.scrape = self.scrape.wrapping_add(1);
        std::mem::swap(&mut self.lines, &mut self.next);
        self.next.clear();
        if self.scrape.is_multiple_of(KEEP_SCRAPES) {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let (scrape, old) = (self.scrape, std::mem::take(&mut self.families));
        let mut kept = Vec::with_capacity(old.len());
        self.by_name.retain(|_, index| {
            let family = &old[*index as usize];
            let keep = scrape.wrapping_sub(family.seen) <= KEEP_SCRAPES;
            if keep {
                *index = kept.len() as u32;
                kept.push(family.clone());
            }
            keep
        });
        self.families = kept;
        // The lines name families by their old places.
        self.lines.clear();
    }

    pub(super) fn note(&mut self, metadata: Metadata<'_>) {
        let hash = hash(metadata);
        if let Some((_, index)) = self.lines.get(self.next.len()).filter(|(h, _)| *h == hash) {
            self.families[*index as usize].seen = self.scrape;
            self.next.push((hash, *index));
            return;
        }
        let (Metadata::Kind(name, _) | Metadata::Help(name, _) | Metadata::Unit(name, _)) = metadata;
        let index = match self.by_name.get(name) {
            Some(index) => *index,
            None if self.families.len() >= FAMILIES_MAX => return,
            None => {
                let index = self.families.len() as u32;
                self.families.push(Family::default());
                self.by_name.insert(name.to_owned(), index);
                index
            }
        };
        let family = &mut self.families[index as usize];
        family.seen = self.scrape;
        match metadata {
            Metadata::Kind(_, kind) => family.kind = kind,
            Metadata::Help(_, text) => assign(&mut family.help, text),
            Metadata::Unit(_, text) => assign(&mut family.unit, text),
        }
        if self.next.len() < 4 * FAMILIES_MAX {
            self.next.push((hash, index));
        }
    }

    /// One family.
    pub fn get(&self, name: &str) -> Option<&Family> {
        self.by_name.get(name).map(|i| &self.families[*i as usize])
    }

    /// All families, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Family)> {
        self.by_name.iter().map(|(n, i)| (n.as_str(), &self.families[*i as usize]))
    }

    /// Number of families.
    pub fn len(&self) -> usize {
        self.families.len()
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.families.is_empty()
    }
}

fn hash(metadata: Metadata<'_>) -> u64 {
    match metadata {
        Metadata::Kind(name, kind) => xxh3_64(name.as_bytes()) ^ (kind as u64 + 1),
        Metadata::Help(name, text) => xxh3_64_with_seed(text.as_bytes(), xxh3_64(name.as_bytes())),
        Metadata::Unit(name, text) => xxh3_64_with_seed(text.as_bytes(), !xxh3_64(name.as_bytes())),
    }
}

fn assign(to: &mut String, text: &str) {
    let mut end = text.len().min(HELP_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    if *to != text[..end] {
        text[..end].clone_into(to);
    }
}
