//! Scraping: where targets come from, what a target is, when it is scraped, how it is fetched, how its answer
//! is read, and which series have ended.
//!
//! Owns: discovery (static, files, HTTP), targets after relabelling, the deterministic schedule (design 6), the
//! fetcher with all its bounds, the exposition lexers, and the scrape cache with the staleness rules.
//!
//! Refuses: storing samples, owning timers or tasks. The caller (an actor) asks when the next scrape is due,
//! runs the fetch, feeds the outcome to `ScrapeLoopState::ingest` and appends what comes out.
//!
//! Invariants: two nodes with the same configuration compute the same target keys and the same scheduled
//! times; a failing scrape never harms another target; whatever a target sends, memory stays within
//! `fetch::BODY_MAX` and the job's limits.

pub mod discovery;
pub mod fetch;
pub mod http;
pub mod http_sd;
pub mod ingest;
pub mod native;
pub mod parse;
pub mod schedule;
pub mod status;
pub mod target;

pub use discovery::{FileDiscovery, FileProblem, FileUpdate, FileWatch, static_groups};
pub use fetch::{Fetched, Fetcher};
pub use http::{HttpClient, HttpError};
pub use http_sd::{Belief, HttpSource, Taken, source_key};
pub use ingest::{
    BodyView, CacheIndex, Failed, IngestSettings, OutExemplar, OutHistogram, OutSample, ScrapeLoopState,
    ScrapeReport, SharedFamilies,
};
pub use native::NativeHistogram;
pub use schedule::{current_due, next_due, schedule_offset};
pub use status::{DroppedTarget, Health, TargetStatus};
pub use target::{Target, TargetError, TargetGroup, TargetSet, populate_labels};
