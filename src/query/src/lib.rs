//! Queries over the whole cluster: fragments, routing, deduplication, completeness.
//!
//! Owns the way of a query from text to result: one pinned view, a plan of fragments (`plan`), questions to
//! peers and their answers (`scope`, `wire`, `client`, `server`, `local`, `reading`), their bounds (`limits`), the
//! rounds (`rounds`) of the coordinator (`coordinator`), how one is carried out (`asking`) and when a question is asked
//! twice (`hedge`), what is evaluated where the blocks are (`pushing`), who is
//! asked beside the cluster (`endpoints`), external labels for those who read samples (`dressing`) what the cluster says to others (`speaking`) and evaluates for them (`querying`), replicas into one series (`merge`), series that nobody has to list (`picked`), the verdict on
//! completeness (`completeness`), the picture of the cluster that people see (`picture`), and the
//! front that HTTP and rules call (`front`). What lies above or beside is reached through `ports`.
//!
//! Refuses PromQL semantics (crate `promql`), block formats and JSON.
//!
//! Invariants: an answer is complete or names what is missing and why; the same question on settled data
//! gives the same bits on every node; a partial answer is never presented as whole.

mod asking;
pub mod client;
pub mod completeness;
pub mod coordinator;
mod dressing;
pub mod endpoints;
pub mod error;
pub mod front;
pub mod hedge;
pub mod lens;
pub mod limits;
pub mod local;
pub mod merge;
mod part_wire;
pub mod picked;
pub mod picture;
pub mod plan;
pub mod ports;
pub mod pushing;
pub mod querying;
mod reading;
pub mod rounds;
pub mod scope;
pub mod server;
pub mod speaking;
pub mod stats;
pub mod terms;
#[cfg(test)]
mod testing;
pub mod wire;

pub use client::Peers;
pub use completeness::Gap;
pub use coordinator::Coordinator;
pub use endpoints::Outside;
pub use error::QueryError;
pub use front::{Front, FrontLimits, MetadataRequest, QueryRequest, QueryResponse, ReadRequest, Timings};
pub use hedge::Hedger;
pub use koios_store::SeriesShard;
pub use lens::Lens;
pub use limits::FragmentLimits;
pub use local::LocalParts;
pub use ports::{Admission, Compute, HeadPort, Reports, Ticket};
pub use rounds::{Rounds, Want};
pub use scope::{Answer, Missing, MissingReason, Part, Scope};
pub use server::PeerService;
pub use stats::{QueryStats, ServedStats};
pub use terms::{Resolution, Terms};
