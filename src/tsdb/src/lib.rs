//! Koios storage engine: head shards, write-ahead log, block cut
