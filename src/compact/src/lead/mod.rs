//! What several compactors over one bucket agree on, without a leader to lose: pure decisions, nothing read or written.
//!
//! `lease` says who works on a group, which saves work and nothing else. `decision` is what makes an output count: one key
//! for each output, created once, commit or abort. `fate` says from what lies in the bucket what may be done to a block:
//! whether its meta.json may be written, what becomes of an upload that ended half way, which other blocks stand for it,
//! whether its files may go. `job` names groups and plans. Any number of processes may act on these answers at any time and
//! be stopped for any time between looking and acting: no sample is lost. `tests/lead_model` goes through all the ways.

pub mod decision;
pub mod fate;
pub mod job;
pub mod lease;
