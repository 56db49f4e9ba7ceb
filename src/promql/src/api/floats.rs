//! The float points of one series of a matrix.
//!
//! A range query has its points at regular steps, so eight bytes a step are enough: no time is kept, and a step
//! without a point holds a NaN that no stored sample can have. Only raw samples carry times of their own.

/// What stands at a step without a point.
pub(crate) const ABSENT: u64 = 0x7ff4_0000_0000_ab5e;

/// Points `(ms, value)` in ascending order of time.
#[derive(Clone, Debug, Default)]
pub struct Floats {
    values: Vec<f64>,
    times: Times,
}

#[derive(Clone, Debug)]
enum Times {
    /// First time and distance, ms.
    Steps(i64, i64),
    /// One for each value.
    Own(Vec<i64>),
}

impl Default for Times {
    fn default() -> Self {
        Self::Steps(0, 1)
    }
}

impl Floats {
    /// From one value a step; steps without a point hold `ABSENT`.
    pub(crate) fn at_steps(first_ms: i64, step_ms: i64, values: Vec<f64>) -> Self {
        Self { values, times: Times::Steps(first_ms, step_ms) }
    }

    /// Appends a point; only to points with times of their own.
    pub(crate) fn push(&mut self, t_ms: i64, v: f64) {
        match &mut self.times {
            Times::Own(times) => times.push(t_ms),
            Times::Steps(..) => self.times = Times::Own(vec![t_ms]),
        }
        self.values.push(v);
    }

    /// The points.
    pub fn iter(&self) -> impl Iterator<Item = (i64, f64)> + '_ {
        let time = move |i: usize| match &self.times {
            Times::Steps(first, step) => first.saturating_add(step.saturating_mul(i as i64)),
            Times::Own(times) => times[i],
        };
        self.values.iter().enumerate().filter(|(_, v)| Self::is_point(**v)).map(move |(i, v)| (time(i), *v))
    }

    /// First time, distance in ms and one value a step, when the points are at regular steps.
    pub fn steps(&self) -> Option<(i64, i64, &[f64])> {
        match &self.times {
            Times::Steps(first, step) => Some((*first, *step, &self.values)),
            Times::Own(_) => None,
        }
    }

    /// Whether a value of `steps` is a point.
    #[inline]
    pub fn is_point(v: f64) -> bool {
        v.to_bits() != ABSENT
    }

    /// Numbers held in memory for the points, steps without one included.
    pub(crate) fn held(&self) -> usize {
        match &self.times {
            Times::Steps(..) => self.values.len(),
            Times::Own(times) => 2 * times.len(),
        }
    }

    /// Whether there is no point.
    pub fn is_empty(&self) -> bool {
        !self.values.iter().any(|v| Self::is_point(*v))
    }
}

impl FromIterator<(i64, f64)> for Floats {
    fn from_iter<I: IntoIterator<Item = (i64, f64)>>(points: I) -> Self {
        let mut floats = Self::default();
        points.into_iter().for_each(|(t, v)| floats.push(t, v));
        floats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_own_times_give_the_same_points() {
        let steps = Floats::at_steps(10, 5, vec![1.0, f64::from_bits(ABSENT), 3.0]);
        let own: Floats = [(10, 1.0), (20, 3.0)].into_iter().collect();
        assert!(steps.iter().eq(own.iter()) && steps.iter().eq([(10, 1.0), (20, 3.0)]));
        assert!(Floats::default().is_empty() && !own.is_empty());
        assert!(Floats::at_steps(0, 1, vec![f64::from_bits(ABSENT)]).is_empty());
        assert_eq!((steps.steps().map(|s| s.2.len()), own.steps()), (Some(3), None));
    }
}
