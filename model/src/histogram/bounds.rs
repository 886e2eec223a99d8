//! Bounds of buckets.
//!
//! Bucket `i` of an exponential schema `n` holds values in `(b^(i-1), b^i]` with `b = 2^(2^-n)`, mirrored for negative
//! ones; bucket `i` of custom bounds holds values in `(bound[i-1], bound[i]]`, open towards infinity at both ends.

use std::sync::OnceLock;

use super::{CUSTOM_BUCKETS_SCHEMA, EXPONENTIAL_SCHEMA_MAX};

/// Steps of the finest schema between 0.5 and 1.
const FRACTIONS: usize = 1 << EXPONENTIAL_SCHEMA_MAX;

/// Upper bound of bucket `index`.
pub(super) fn upper_bound(index: i32, schema: i32, custom_values: &[f64]) -> f64 {
    if schema != CUSTOM_BUCKETS_SCHEMA {
        return exponential_bound(index, schema);
    }
    match usize::try_from(index) {
        Err(_) => f64::NEG_INFINITY,
        Ok(index) => custom_values.get(index).copied().unwrap_or(f64::INFINITY),
    }
}

/// `2^(index * 2^-schema)`, but the largest finite number where that is the first power beyond all finite numbers: the
/// bucket of infinite observations comes only after it.
fn exponential_bound(index: i32, schema: i32) -> f64 {
    let (fraction, exponent) = if schema <= 0 {
        (1.0, i64::from(index) << schema.unsigned_abs().min(30))
    } else {
        let schema = schema.min(EXPONENTIAL_SCHEMA_MAX);
        let within = (index & ((1 << schema) - 1)) << (EXPONENTIAL_SCHEMA_MAX - schema);
        // Fractions lie in [0.5, 1): the exponent is one higher than that of the power itself.
        (2.0 * fractions()[within as usize], i64::from(index >> schema))
    };
    if fraction == 1.0 && exponent == 1024 {
        return f64::MAX;
    }
    scale(fraction, exponent)
}

/// `fraction * 2^exponent`, `fraction` in [1, 2), without overflow on the way and with subnormal numbers.
fn scale(fraction: f64, exponent: i64) -> f64 {
    match exponent {
        1024.. => f64::INFINITY,
        -1022..=1023 => fraction * f64::from_bits(((exponent + 1023) as u64) << 52),
        // Two exact factors; the second product rounds into the subnormal numbers once.
        -1080..=-1023 => fraction * f64::from_bits(1 << 52) * f64::exp2((exponent + 1022) as f64),
        _ => 0.0,
    }
}

fn fractions() -> &'static [f64; FRACTIONS] {
    static TABLE: OnceLock<[f64; FRACTIONS]> = OnceLock::new();
    TABLE.get_or_init(|| std::array::from_fn(|i| f64::exp2(i as f64 / FRACTIONS as f64 - 1.0)))
}

/// The index that bucket `index` of schema `from` has in the coarser schema `to`.
pub(super) fn coarser_index(index: i32, from: i32, to: i32) -> i32 {
    let shift = (from - to).clamp(0, 31);
    (index.saturating_sub(1) >> shift) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_bounds_of_every_schema() {
        for schema in -4..=8 {
            for exponent in [-1022i32, -17, -1, 0, 1, 5, 1023] {
                let (index, exact) = if schema >= 0 {
                    (exponent << schema, true)
                } else {
                    (exponent >> -schema, exponent % (1 << -schema) == 0)
                };
                if exact {
                    assert_eq!(upper_bound(index, schema, &[]), 2f64.powi(exponent), "{schema} {exponent}");
                }
            }
        }
        assert_eq!(upper_bound(1, 1, &[]), std::f64::consts::SQRT_2);
    }

    #[test]
    fn the_last_finite_bucket_ends_at_the_largest_number() {
        for schema in -4..=8 {
            let last = if schema >= 0 { 1024 << schema } else { 1024 >> -schema };
            assert_eq!(upper_bound(last, schema, &[]), f64::MAX, "{schema}");
            assert_eq!(upper_bound(last + 1, schema, &[]), f64::INFINITY, "{schema}");
            assert!(upper_bound(last - 1, schema, &[]) < f64::MAX, "{schema}");
        }
        assert_eq!(upper_bound(i32::MIN, 8, &[]), 0.0);
        assert!(upper_bound(-1074, 0, &[]) > 0.0);
    }

    #[test]
    fn coarser_buckets_hold_their_parts() {
        for index in -40..40 {
            let coarse = coarser_index(index, 3, 1);
            assert!(upper_bound(coarse, 1, &[]) >= upper_bound(index, 3, &[]) * (1.0 - 1e-12));
            assert!(upper_bound(coarse - 1, 1, &[]) <= upper_bound(index - 1, 3, &[]) * (1.0 + 1e-12));
        }
    }
}
