//! Koios cluster: gossip, ownership, routing view
