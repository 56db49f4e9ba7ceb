//! Koios telemetry: one metrics registry per node, logs, panic hook
