//! Koios PromQL: lexer, parser, printer, planner, engine
