//! Functions that give instant vectors.
//!
//! This file only says who evaluates what: element-wise mathematics in `math` and `dates`, functions of a
//! window in `range`, functions on labels, order and absence in files of their own.

mod absent;
mod dates;
mod histogram;
mod info;
mod labels;
mod math;
mod natural;
mod quantile;
mod range;
mod sort;
mod stamps;

use koios_model::Labels;

use crate::engine::{Column, Ctx, Res, Row, Sink, Timeline};
use crate::plan::{Call, Node};

/// Whether a function gives one element for each element of its first argument.
pub(crate) fn maps_elements(name: &str) -> bool {
    math::unary(name).is_some()
        || dates::part(name).is_some()
        || matches!(name, "clamp" | "clamp_min" | "clamp_max" | "round")
}

/// Whether a function gives one element for each window of its range argument.
pub(crate) fn maps_windows(name: &str) -> bool {
    range::kernel(name).is_some()
}

impl Ctx<'_> {
    /// Rows of a function call.
    pub fn call_rows(&self, c: &Call, node: &Node, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        if let Some(f) = math::unary(c.func.name) {
            return self.float_rows(&c.args[0], tl, f, sink);
        }
        if let Some(f) = dates::part(c.func.name) {
            return self.date_rows(c, f, tl, sink);
        }
        if let Some(f) = range::kernel(c.func.name) {
            return self.range_rows(c, f, tl, sink);
        }
        match c.func.name {
            "vector" => {
                let col = Column::floats(self.scalar(&c.args[0], tl)?);
                sink(Row { labels: Labels::empty(), drop_name: false, col })
            }
            "clamp" | "clamp_min" | "clamp_max" => self.clamp_rows(c, tl, sink),
            "round" => self.round_rows(c, tl, sink),
            "timestamp" | "start_timestamp" => self.timestamp_rows(c, tl, sink),
            "label_replace" => self.label_replace_rows(c, tl, sink),
            "label_join" => self.label_join_rows(c, tl, sink),
            "sort" | "sort_desc" => self.sort_rows(c, node.span, tl, sink),
            "sort_by_label" | "sort_by_label_desc" => self.sort_by_label_rows(c, node.span, tl, sink),
            "absent" => self.absent_rows(&c.args[0], tl, sink),
            "absent_over_time" => self.absent_over_time_rows(&c.args[0], tl, sink),
            "info" => self.info_rows(c, tl, sink),
            "histogram_quantile" => self.quantile_function(c, tl, sink),
            "histogram_quantiles" => self.quantiles_function(c, tl, sink),
            "histogram_fraction" => self.fraction_function(c, tl, sink),
            _ => self.histogram_rows(c, tl, sink),
        }
    }
}
