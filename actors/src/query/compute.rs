//! The compute pool as the query crate wants it.

use async_trait::async_trait;
use koios_query::{Compute, QueryError};

use crate::kit::ComputePool;
use crate::kit::compute::ComputeError;

/// Adapter.
pub struct QueryCompute(pub ComputePool);

#[async_trait]
impl Compute for QueryCompute {
    async fn run(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), QueryError> {
        self.0.run(job).await.map_err(|e| match e {
            ComputeError::Full(_) => QueryError::Overloaded(e.to_string()),
            ComputeError::Panicked => QueryError::Internal(e.to_string()),
        })
    }

    fn threads(&self) -> usize {
        self.0.threads()
    }
}
