//! A question to one holder, and its answer, in Koios' own types.

use koios_chunk::SeriesChunks;
use koios_model::{BlockId, Labels};
use koios_store::Dress;

use crate::picked::Picked;

/// What part of the data is asked for, and how much at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// For logs.
    pub query_id: String,
    /// First sample time, inclusive, milliseconds.
    pub mint: i64,
    /// Last sample time, inclusive, milliseconds.
    pub maxt: i64,
    /// The holder's own part.
    pub own: bool,
    /// Blocks of the shared bucket.
    pub blocks: Vec<BlockId>,
    /// All blocks of the holder's bucket.
    pub whole_bucket: bool,
    /// Most series in the answer.
    pub series_max: u64,
    /// Most chunk bytes in the answer.
    pub bytes_max: u64,
    /// Most samples in the answer.
    pub samples_max: u64,
    /// Which of the series.
    pub shard: Shard,
    /// The holder may answer that it should be asked in parts.
    pub may_split: bool,
    /// The coarsest blocks of a whole bucket, milliseconds between samples.
    pub max_resolution_ms: i64,
    /// Which external labels the answer has.
    pub dress: Dress,
}

/// Some of the series: those whose hash leaves `index` when divided by `count`. The replica slot is no part of the
/// hash, so all replicas of a series are in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Less than `count`.
    pub index: u32,
    /// At least 1.
    pub count: u32,
}

impl Shard {
    /// All series.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether a series is in it.
    pub fn holds(self, labels: &Labels) -> bool {
        self.count <= 1 || labels.hash64() % u64::from(self.count) == u64::from(self.index)
    }
}

/// One part of a holder's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Head and whatever is not in a shared bucket.
    Own,
    /// One block.
    Block(BlockId),
}

/// Why a part was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingReason {
    /// The holder does not serve it; ask another.
    NotMine,
    /// Being loaded.
    Loading,
    /// Not in the bucket.
    Gone,
    /// Does not verify.
    Corrupt,
    /// Not for the asker.
    Denied,
    /// Over a limit.
    Limit,
}

impl MissingReason {
    const NAMES: [(MissingReason, &'static str); 6] = [
        (MissingReason::NotMine, "not_mine"),
        (MissingReason::Loading, "loading"),
        (MissingReason::Gone, "gone"),
        (MissingReason::Corrupt, "corrupt"),
        (MissingReason::Denied, "denied"),
        (MissingReason::Limit, "limit"),
    ];

    /// How many reasons there are.
    pub const COUNT: usize = Self::NAMES.len();

    /// All reasons, by `index`.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::NAMES.iter().map(|(r, _)| *r)
    }

    /// Its place among all reasons, less than `COUNT`.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Name on the wire.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(r, _)| *r == self).map_or("not_mine", |(_, n)| n)
    }

    /// From the wire; an unknown reason from a newer node counts as `NotMine`.
    pub fn parse(text: &str) -> Self {
        Self::NAMES.iter().find(|(_, n)| *n == text).map_or(MissingReason::NotMine, |(r, _)| *r)
    }
}

/// A part that was not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub part: Part,
    /// Why.
    pub reason: MissingReason,
    /// In words.
    pub detail: String,
}

/// What of the series is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Only who they are.
    Labels,
    /// Their chunks.
    Chunks,
    /// Their chunks, or only where they lie if that will do.
    Picked,
}

/// What a holder answers. Always says what it served.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Series; one label set may come several times.
    pub series: Vec<SeriesChunks>,
    /// Or all series, still in their block; only where `Form::Picked` was asked for.
    pub picked: Option<Picked>,
    /// Parts that are in `series`.
    pub served: Vec<Part>,
    /// Parts that are not.
    pub missing: Vec<Missing>,
    /// Words for the user.
    pub warnings: Vec<String>,
    /// Blocks that the head forgot samples into lately.
    pub moved: Vec<BlockId>,
    /// Not 0: nothing is served, and the question should be put in this many parts.
    pub split: u32,
}

/// A list of texts with the same account of parts.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// Label names or values, unsorted, maybe repeated.
    pub values: Vec<String>,
    /// Parts that are in `values`.
    pub served: Vec<Part>,
    /// Parts that are not.
    pub missing: Vec<Missing>,
    /// Blocks that the head forgot samples into lately.
    pub moved: Vec<BlockId>,
}
