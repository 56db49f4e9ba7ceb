//! Scraping: which targets, who scrapes them, and one loop per target.
//!
//! Discovery knows the targets of every job, a pool per job decides which of them this node scrapes in which
//! slot, a scraper per target and slot does it on the target's deterministic schedule. All three only steer:
//! parsing, relabelling and staleness are the scrape crate's.

pub mod board;
pub mod discovery;
pub mod pool;
pub mod relief;
pub mod scales;
pub mod scraper;
pub mod sources;

pub use board::TargetBoard;
pub use discovery::{Apply, Discovery, ScrapeSetup, StopAll};
pub use relief::Relief;
pub use scales::Scales;
pub use sources::Sources;
