//! Native histogram chunks: encodings 2 (integers) and 3 (floats), custom bounds included.
//!
//! `value` is the integer form, `layout` what the samples of a chunk share, `coder` how the numbers of each
//! encoding are written, `appender` and `reader` the two directions. Refuses the head's rules about size and time.

mod appender;
mod coder;
mod layout;
mod reader;
mod spans;
mod value;

pub use appender::HistogramAppender;
pub use coder::{Coder, FloatCoder, IntCoder};
pub use reader::HistogramIter;
pub(crate) use reader::{read, read_repeating};
pub use value::IntHistogram;

#[cfg(test)]
mod tests;
