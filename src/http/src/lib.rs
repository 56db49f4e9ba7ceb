//! Koios HTTP: the Prometheus API, one file per endpoint
