//! The language: text in, typed tree out, text again.
//!
//! Owns lexer, parser, syntax tree, type check and printers for PromQL as of Prometheus 3.14. Every node
//! knows its byte range. Refuses input nested deeper than a bound instead of overflowing the stack. Printing
//! and parsing again gives the same tree.

pub mod ast;
mod check;
pub mod functions;
mod json;
mod lexer;
mod literal;
mod parser;
mod pretty;
mod print;
mod token;

pub use json::expr_to_json;
pub(crate) use literal::{parse_number, quote, unquote, valid_label_name};
pub use parser::{ParseError, ParserOptions, parse, parse_selector, parse_with};
pub use pretty::prettify;

#[cfg(test)]
mod tests;
