//! Koios store: block catalogue and block serving
