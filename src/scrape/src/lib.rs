//! Koios scraping: discovery, targets, exposition parsers, staleness
