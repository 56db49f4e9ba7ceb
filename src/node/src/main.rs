//! The koios binary.
fn main() {}
