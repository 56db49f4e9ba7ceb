//! What a target says about its metric families: type, help, unit. Kept for ten scrapes after it was last
//! said, at most `FAMILIES_MAX` families, help texts cut at `HELP_MAX` bytes.

use hashbrown::HashMap;

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

/// Families by name.
#[derive(Clone, Debug, Default)]
pub struct FamilyTable {
    families: HashMap<String, Family>,
    scrape: u32,
}

impl FamilyTable {
    /// Starts a scrape.
    pub(super) fn begin(&mut self) {
        self.scrape = self.scrape.wrapping_add(1);
        let scrape = self.scrape;
        if scrape.is_multiple_of(KEEP_SCRAPES) {
            self.families.retain(|_, f| scrape.wrapping_sub(f.seen) <= KEEP_SCRAPES);
        }
    }

    pub(super) fn note(&mut self, metadata: Metadata<'_>) {
        let (Metadata::Kind(name, _) | Metadata::Help(name, _) | Metadata::Unit(name, _)) = metadata;
        if !self.families.contains_key(name) && self.families.len() >= FAMILIES_MAX {
            return;
        }
        let family = self.families.entry_ref(name).or_default();
        family.seen = self.scrape;
        match metadata {
            Metadata::Kind(_, kind) => family.kind = kind,
            Metadata::Help(_, text) => assign(&mut family.help, text),
            Metadata::Unit(_, text) => assign(&mut family.unit, text),
        }
    }

    /// One family.
    pub fn get(&self, name: &str) -> Option<&Family> {
        self.families.get(name)
    }

    /// All families, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Family)> {
        self.families.iter().map(|(n, f)| (n.as_str(), f))
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

fn assign(to: &mut String, text: &str) {
    let mut end = text.len().min(HELP_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    if *to != text[..end] {
        text[..end].clone_into(to);
    }
}
