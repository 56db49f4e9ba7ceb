//! Sums and means of windows that slide, for values that do round when they are added.
//!
//! A compensated sum (`kahan_inc`) is a plain sum `s` in floats and a second float `c` that collects what each
//! addition rounded away. Each such error is exact, and all are multiples of the last binary digit of the finest
//! value. As long as their sum needs no more than 53 of those digits, `c` is exact as well, so `s + c` is the exact
//! sum of the window: it can be had from running sums in whole numbers of 128 bits, whatever the window. A mean is
//! `s / n + c / n`, each rounded, so it needs the plain sum too; those of eight windows are added up side by
//! side. The result is that of the compensated loop to the last bit; a property test compares them.

/// Windows that are summed side by side.
const LANES: usize = 8;
/// The same for windows that begin one sample after the other: all accumulators that there are registers for.
const WIDE: usize = 16;
/// Binary digits that a running sum may have.
const DIGITS_MAX: i32 = 120;
/// Finest digit of all: with it, scaling needs no special cases.
const FINEST: i32 = -900;

/// Running sums of one series.
pub(super) struct Fixed {
    /// Sum of all values before each position, in units of `2^unit`.
    before: Vec<i128>,
    unit: i32,
}

/// Exponents of the first and the last binary digit of a value: it is below `2^first` and a multiple of `2^last`.
#[inline]
fn digits(v: f64) -> Option<(i32, i32)> {
    let bits = v.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let mantissa = bits & ((1 << 52) - 1);
    match (exponent, mantissa) {
        (0, 0) => Some((i32::MIN, i32::MAX)),
        (0x7ff, _) | (0, _) => None,
        _ => Some((exponent - 1022, exponent - 1075 + (mantissa | 1 << 52).trailing_zeros() as i32)),
    }
}

/// A multiple of `2^last` in units of that, below 2^127 of them.
#[inline]
fn units(v: f64, last: i32) -> i128 {
    let bits = v.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    if exponent == 0 {
        return 0;
    }
    let mantissa = i128::from(bits & ((1 << 52) - 1) | 1 << 52);
    let shift = exponent - 1075 - last;
    let size = if shift >= 0 { mantissa << shift } else { mantissa >> -shift };
    if v < 0.0 { -size } else { size }
}

impl Fixed {
    /// `None` when sums of these values could not be exact.
    pub fn new(values: &[f64]) -> Option<Self> {
        let (mut first, mut last) = (i32::MIN, i32::MAX);
        for v in values {
            let (f, l) = digits(*v)?;
            (first, last) = (first.max(f), last.min(l));
        }
        if first == i32::MIN {
            (first, last) = (0, 0);
        }
        // Every sum is below 2^top; an error is below 2^(top - 53), and there are fewer than 2^count of them.
        let count = usize::BITS as i32 - values.len().leading_zeros() as i32;
        let top = first.checked_add(count)?;
        let errors = top - 53 + count;
        if last < FINEST || top > -FINEST || top - last > DIGITS_MAX || errors - last > 52 {
            return None;
        }
        let mut before = Vec::with_capacity(values.len() + 1);
        let mut sum = 0i128;
        before.push(sum);
        for v in values {
            sum += units(*v, last);
            before.push(sum);
        }
        Some(Self { before, unit: last })
    }

    /// The exact sum of a window, rounded once.
    #[inline]
    pub fn sum(&self, from: usize, to: usize) -> f64 {
        (self.before[to] - self.before[from]) as f64 * 2f64.powi(self.unit)
    }

    /// The means of windows (step, from, to), each not empty, given to `put` by step.
    pub fn means(&self, values: &[f64], windows: &[(usize, usize, usize)], mut put: impl FnMut(usize, f64)) {
        let unit = 2f64.powi(self.unit);
        let mut mean = |(step, from, to): &(usize, usize, usize), s: f64| {
            let n = (to - from) as f64;
            // No more than 53 digits, see above.
            let errors = self.before[*to] - self.before[*from] - units(s, self.unit);
            let c = errors as i64 as f64 * unit;
            put(*step, s / n + c / n);
        };
        let mut rest = windows;
        while let Some((_, from, _)) = rest.first() {
            let growing = rest.iter().take_while(|w| w.1 == *from).count();
            let wide = rest.get(..WIDE).filter(|group| in_a_row(group));
            let group = if growing >= WIDE {
                let (mut sum, mut at) = (values[*from], from + 1);
                for window in &rest[..growing] {
                    values[at..window.2].iter().for_each(|v| sum += v);
                    at = window.2;
                    mean(window, sum);
                }
                growing
            } else if let Some(group) = wide {
                group.iter().zip(wide_sums(values, group)).for_each(|(w, s)| mean(w, s));
                WIDE
            } else {
                let group = &rest[..rest.len().min(LANES)];
                group.iter().zip(plain_sums(values, group)).for_each(|(w, s)| mean(w, s));
                group.len()
            };
            rest = &rest[group..];
        }
    }
}

/// Whether windows begin one sample after the other, so that together they read one run of values.
fn in_a_row(windows: &[(usize, usize, usize)]) -> bool {
    windows.windows(2).all(|w| w[1].1 == w[0].1 + 1)
}

/// As `plain_sums`, of windows in a row.
fn wide_sums(values: &[f64], windows: &[(usize, usize, usize)]) -> [f64; WIDE] {
    let first = windows[0].1;
    let shortest = windows.iter().map(|(_, from, to)| to - from).min().unwrap_or(0);
    let mut sums = [0.0; WIDE];
    let run = &values[first..first + shortest + WIDE - 1];
    sums.copy_from_slice(&run[..WIDE]);
    for at in run.windows(WIDE).skip(1) {
        sums.iter_mut().zip(at).for_each(|(s, v)| *s += v);
    }
    for (s, (_, from, to)) in sums.iter_mut().zip(windows) {
        values[from + shortest..*to].iter().for_each(|v| *s += v);
    }
    sums
}

/// Sums in floats, in order, of up to eight windows.
fn plain_sums(values: &[f64], windows: &[(usize, usize, usize)]) -> [f64; LANES] {
    let mut sums = [0.0; LANES];
    let shortest = windows.iter().map(|(_, from, to)| to - from).min().unwrap_or(0);
    let mut lanes: [&[f64]; LANES] = [&[]; LANES];
    for (lane, (_, from, to)) in lanes.iter_mut().zip(windows) {
        *lane = &values[*from..*to];
    }
    if windows.len() == LANES {
        let heads = lanes.map(|l| &l[..shortest]);
        sums = heads.map(|h| h[0]);
        for j in 1..shortest {
            sums.iter_mut().zip(heads).for_each(|(s, h)| *s += h[j]);
        }
        lanes = lanes.map(|l| &l[shortest..]);
    } else {
        for (s, lane) in sums.iter_mut().zip(&mut lanes).take(windows.len()) {
            *s = lane[0];
            *lane = &lane[1..];
        }
    }
    for (s, lane) in sums.iter_mut().zip(lanes) {
        lane.iter().for_each(|v| *s += v);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::sums::{float_mean, float_sum};
    use super::*;
    use proptest::prelude::*;

    fn check(values: &[f64], length: usize, stride: usize) -> bool {
        let Some(fixed) = Fixed::new(values) else { return false };
        let starts = (0..values.len()).step_by(stride).enumerate();
        let windows: Vec<(usize, usize, usize)> =
            starts.map(|(step, from)| (step, from, (from + length).min(values.len()))).collect();
        let mut means = vec![0.0; windows.len()];
        fixed.means(values, &windows, |step, mean| means[step] = mean);
        for (step, from, to) in windows {
            let window = &values[from..to];
            assert_eq!(fixed.sum(from, to).to_bits(), float_sum(window).to_bits(), "sum of {window:?}");
            assert_eq!(means[step].to_bits(), float_mean(window).to_bits(), "mean of {window:?}");
        }
        true
    }

    #[test]
    fn what_cannot_be_exact_is_left_alone() {
        assert!(Fixed::new(&[f64::NAN]).is_none() && Fixed::new(&[f64::INFINITY]).is_none());
        assert!(Fixed::new(&[1e300, 1e-300]).is_none() && Fixed::new(&[f64::from_bits(1)]).is_none());
        assert!(Fixed::new(&[1e40, 1e-20]).is_none());
        for values in [vec![], vec![0.0, -0.0], vec![-0.0], vec![0.1, 1e10, -3.7]] {
            assert!(check(&values, 2, 1), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn the_same_bits_as_the_compensated_loop(
            values in proptest::collection::vec((-1000i64..1000, 0usize..6), 1..90),
            length in 1usize..40,
            stride in 1usize..4,
            growing in 0usize..50,
        ) {
            let by = [997.0, 10.0, 1.0, 300.0, 1e-2, -7.0];
            let values: Vec<f64> = values.into_iter().map(|(n, d)| n as f64 / by[d]).collect();
            prop_assert!(check(&values, length, stride));
            let fixed = Fixed::new(&values).unwrap();
            let windows: Vec<_> = (0..growing).map(|step| (step, 0, (step + 1).min(values.len()))).collect();
            fixed.means(&values, &windows, |step, mean| {
                assert_eq!(mean.to_bits(), float_mean(&values[..windows[step].2]).to_bits());
            });
        }

        #[test]
        fn any_values(
            values in proptest::collection::vec(proptest::num::f64::ANY, 1..30),
            near in proptest::collection::vec(-1e9f64..1e9, 1..60),
            length in 1usize..20,
        ) {
            check(&values, length, 1);
            check(&near, length, 1);
        }
    }
}
