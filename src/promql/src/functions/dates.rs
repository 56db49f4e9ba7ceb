//! Parts of dates, in UTC.

use koios_model::Labels;
use koios_model::timestamp::{civil_from_days, days_from_civil};

use crate::engine::{Cell, Column, Ctx, Res, Row, Sink, Timeline};
use crate::plan::Call;

/// The function that takes its part out of seconds since the epoch.
pub(super) fn part(name: &str) -> Option<fn(i64) -> f64> {
    Some(match name {
        "minute" => |s| s.div_euclid(60).rem_euclid(60) as f64,
        "hour" => |s| s.div_euclid(3600).rem_euclid(24) as f64,
        "day_of_week" => |s| (s.div_euclid(86_400) + 4).rem_euclid(7) as f64,
        "day_of_month" => |s| civil(s).2 as f64,
        "month" => |s| civil(s).1 as f64,
        "year" => |s| civil(s).0 as f64,
        "day_of_year" => |s| {
            let days = s.div_euclid(86_400);
            (days - days_from_civil(civil(s).0, 1, 1) + 1) as f64
        },
        "days_in_month" => |s| {
            let (y, m, _) = civil(s);
            let (ny, nm) = if m == 12 { (y + 1, 1) } else { (y, m + 1) };
            (days_from_civil(ny, nm, 1) - days_from_civil(y, m, 1)) as f64
        },
        _ => return None,
    })
}

fn civil(seconds: i64) -> (i64, i64, i64) {
    civil_from_days(seconds.div_euclid(86_400))
}

impl Ctx<'_> {
    pub(super) fn date_rows(&self, c: &Call, f: fn(i64) -> f64, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        // Far enough for any calendar, and safe to compute with.
        const SECONDS_MAX: f64 = 1e15;
        let Some(arg) = c.args.first() else {
            let values = tl.times().map(|t| f(t.div_euclid(1000))).collect();
            let col = Column::floats(values);
            return sink(Row { labels: Labels::empty(), drop_name: false, col });
        };
        self.mapped(arg, tl, true, sink, |_, cell| match cell {
            Cell::Float(v) if v.abs() < SECONDS_MAX => Some(f(v as i64).into()),
            Cell::Float(_) => Some(f64::NAN.into()),
            _ => None,
        })
    }
}
