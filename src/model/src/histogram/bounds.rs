//! Bucket bounds and the two transcendental functions behind them.
//!
//! Prometheus' bounds and interpolations come from Go's `math.Exp2` and `math.Log2`, which differ from the
//! platform's in the last bit. Users see bounds in JSON, so the same rational approximation is used here
//! (argument reduction and coefficients: FreeBSD msun `e_exp.c`, as documented there).

use std::sync::OnceLock;

/// 2^x by reduction to |r| <= ln(2)/2 and a rational approximation of e^r.
pub fn go_exp2(x: f64) -> f64 {
    const LN2_HI: f64 = 6.931_471_803_691_238e-1;
    const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;
    if x.is_nan() || x == f64::INFINITY {
        return x;
    }
    if x > 1_023.999_999_999_999_9 {
        return f64::INFINITY;
    }
    if x < -1074.0 {
        return 0.0;
    }
    let k = if x > 0.0 {
        (x + 0.5) as i32
    } else if x < 0.0 {
        (x - 0.5) as i32
    } else {
        0
    };
    let t = x - f64::from(k);
    ldexp(exp_reduced(t * LN2_HI, -t * LN2_LO), k)
}

fn exp_reduced(hi: f64, lo: f64) -> f64 {
    const P: [f64; 5] = [
        1.666_666_666_666_666_6e-1,
        -2.777_777_777_701_559_3e-3,
        6.613_756_321_437_934e-5,
        -1.653_390_220_546_525_2e-6,
        4.138_136_797_057_238_5e-8,
    ];
    let r = hi - lo;
    let t = r * r;
    let c = r - t * (P[0] + t * (P[1] + t * (P[2] + t * (P[3] + t * P[4]))));
    1.0 - ((lo - (r * c) / (2.0 - c)) - hi)
}

/// Base-2 logarithm: exact for powers of two.
pub fn go_log2(x: f64) -> f64 {
    if !x.is_finite() || x <= 0.0 {
        return x.log2();
    }
    let (fraction, exponent) = frexp(x);
    if fraction == 0.5 {
        return f64::from(exponent - 1);
    }
    fraction.ln() * (1.0 / std::f64::consts::LN_2) + f64::from(exponent)
}

/// `fraction * 2^exponent` with fraction in [0.5, 1); finite positive input.
fn frexp(x: f64) -> (f64, i32) {
    let (x, extra) = if x < f64::MIN_POSITIVE { (x * 2f64.powi(52), -52) } else { (x, 0) };
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1022;
    (f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52)), exponent + extra)
}

/// `x * 2^k` in steps that neither overflow nor round twice for normal results.
fn ldexp(x: f64, k: i32) -> f64 {
    let mut x = x;
    let mut k = k;
    while k > 1000 {
        x *= 2f64.powi(1000);
        k -= 1000;
    }
    while k < -1000 {
        x *= 2f64.powi(-1000);
        k += 1000;
    }
    x * 2f64.powi(k)
}

/// The upper bound of exponential bucket `index`. The largest finite value stands in for 2^1024, so that the
/// last bucket has a finite bound.
pub fn exponential_bound(index: i32, schema: i32) -> f64 {
    if schema < 0 {
        let exponent = i64::from(index) << (-schema).min(31);
        return match exponent {
            1024 => f64::MAX,
            e if e > 1024 => f64::INFINITY,
            e if e < -1080 => 0.0,
            e => ldexp(1.0, e as i32),
        };
    }
    let schema = schema.min(super::SCHEMA_MAX);
    let fraction = fractions()[(1usize << schema) - 1 + (index & ((1 << schema) - 1)) as usize];
    let exponent = (index >> schema) + 1;
    if fraction == 0.5 && exponent == 1025 {
        return f64::MAX;
    }
    if exponent > 1100 {
        return f64::INFINITY;
    }
    ldexp(fraction, exponent.max(-2000))
}

/// The eighths of the way from 0.5 to 1 as they stand in answers of Prometheus 3.14. Its table of bounds is off by
/// a bit here and there, and users compare the bounds that they see.
const EIGHTHS: [f64; 8] = [
    0.5,
    0.545_253_866_332_628_8,
    0.594_603_557_501_360_5,
    0.648_419_777_325_504_8,
    0.707_106_781_186_547_5,
    0.771_105_412_703_970_4,
    0.840_896_415_253_714_4,
    0.917_004_043_204_671_1,
];

/// For each schema 0..=8, one after the other, the bounds between 0.5 and 1.
fn fractions() -> &'static [f64] {
    static TABLE: OnceLock<Vec<f64>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut all = Vec::with_capacity(511);
        for schema in 0..=super::SCHEMA_MAX {
            let n = 1usize << schema;
            all.extend((0..n).map(|i| match (i * 8) % n {
                0 => EIGHTHS[i * 8 / n],
                _ => 0.5 * go_exp2(i as f64 / n as f64),
            }));
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_peer() {
        for (index, want) in [
            (-68, 0.002_762_135_864_009_951),
            (-67, 0.003_012_130_518_374_884_3),
            (-66, 0.003_284_751_622_084_822),
            (-65, 0.003_582_047_043_768_246_5),
            (-59, 0.006_024_261_036_749_768_5),
            (-43, 0.024_097_044_146_999_074),
        ] {
            assert_eq!(exponential_bound(index, 3), want);
        }
    }
}
