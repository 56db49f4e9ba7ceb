//! Koios object storage: the bucket and what lies in it
