//! Round trips of every mode, and of anything.
#![allow(clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::coding::Reader;
use model::sample::{NORMAL_NAN_BITS, STALE_NAN_BITS};
use proptest::prelude::*;

/// Encodes, decodes behind other values and before other bytes, and answers the bytes.
fn round_trip(values: &[f64]) -> Vec<u8> {
    round_trip_with(values, Effort::Small);
    round_trip_with(values, Effort::Quick)
}

fn round_trip_with(values: &[f64], effort: Effort) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_values(values, effort, &mut bytes);
    let len = bytes.len();
    let mut followed = bytes.clone();
    followed.extend_from_slice(&[0x55; 9]);
    let mut reader = Reader::new(&followed);
    let mut out = vec![0.5];
    decode_values(&mut reader, values.len(), &mut out).unwrap();
    let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&out[1..]), bits(values));
    assert_eq!(reader.remaining(), 9);
    for cut in 0..len {
        let mut out = vec![0.5];
        assert!(
            decode_values(&mut Reader::new(&bytes[..cut]), values.len(), &mut out).is_err(),
            "{cut} of {len}"
        );
        assert_eq!(out, [0.5]);
    }
    bytes
}

fn mode_of(values: &[f64]) -> u8 {
    round_trip(values)[0] & 7
}

fn special() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::from_bits(STALE_NAN_BITS)),
        Just(f64::from_bits(NORMAL_NAN_BITS)),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
        Just(f64::MIN_POSITIVE / 2.0),
        any::<u64>().prop_map(f64::from_bits),
    ]
}

/// A column of each kind, with a share of special values between.
fn column() -> impl Strategy<Value = Vec<f64>> {
    let step = prop_oneof![Just(0i64..1), Just(-1..2), Just(0..30), Just(-5000..5000), Just(0..1 << 50)];
    let kind = prop_oneof![
        (0u32..16).prop_map(|exponent| (exponent, 0.0)),
        (0u32..10).prop_map(|exponent| (exponent, 1e-3)),
        Just((0, std::f64::consts::PI)),
    ];
    (step, kind, any::<bool>(), any::<i32>(), 0u32..30, 0usize..260).prop_flat_map(
        |(step, (exponent, odd), sums, start, specials, len)| {
            let value = (step, special(), 0u32..100);
            prop::collection::vec(value, len).prop_map(move |rows| {
                let mut number = i64::from(start);
                let mut sum = 0.0;
                rows.iter()
                    .map(|(step, special, chance)| {
                        if *chance < specials {
                            return *special;
                        }
                        number = number.wrapping_add(*step);
                        let value = number as f64 / POWERS[exponent as usize];
                        sum += value * odd;
                        if sums { sum } else { value + odd * f64::from(*chance) }
                    })
                    .collect()
            })
        },
    )
}

proptest! {
    #[test]
    fn columns_survive(values in column()) {
        round_trip(&values);
    }

    #[test]
    fn any_bits_survive(bits in prop::collection::vec(any::<u64>(), 0..200)) {
        round_trip(&bits.into_iter().map(f64::from_bits).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0usize..1000) {
        let mut out = vec![1.0];
        let done = decode_values(&mut Reader::new(&bytes), count, &mut out);
        prop_assert_eq!(out.len(), if done.is_ok() { 1 + count } else { 1 });
    }

    /// One byte of a good column changed.
    #[test]
    fn damage_is_survived(
        values in column(),
        effort in prop_oneof![Just(Effort::Quick), Just(Effort::Small)],
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        encode_values(&values, effort, &mut bytes);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut out = Vec::new();
        let done = decode_values(&mut Reader::new(&bytes), values.len(), &mut out);
        prop_assert_eq!(out.len(), if done.is_ok() { values.len() } else { 0 });
    }
}

#[test]
fn each_kind_of_column_takes_its_mode() {
    let rows = |value: fn(f64) -> f64| (0..200).map(|i| value(f64::from(i))).collect::<Vec<f64>>();
    assert_eq!(mode_of(&rows(|_| 0.25)), Mode::ConstantDecimal as u8);
    assert_eq!(mode_of(&rows(|_| 1.0 / 3.0)), Mode::ConstantBits as u8);
    assert_eq!(mode_of(&rows(|i| i * 17.0)), Mode::Decimal as u8);
    assert_eq!(mode_of(&rows(|i| (i * 37.0 % 1000.0) / 100.0)), Mode::Decimal as u8);
    assert_eq!(mode_of(&rows(|i| 1.5 + 0.4 * (i * 37.0).sin())), Mode::Bits as u8);
    let mut sum = 0.0;
    let sums: Vec<f64> = (0..200)
        .map(|i| {
            sum += f64::from(i * 7919 % 1000) / 1e6;
            sum
        })
        .collect();
    assert_eq!(mode_of(&sums), Mode::Residual as u8);
}

#[test]
fn markers_cost_little() {
    let mut values = vec![12.0; 120];
    values[119] = f64::from_bits(STALE_NAN_BITS);
    assert_eq!(round_trip(&values).len(), 5);
    assert_eq!(round_trip(&[f64::from_bits(STALE_NAN_BITS); 120]).len(), 6);
    // A summary without observations for a while.
    values[20..60].fill(f64::from_bits(NORMAL_NAN_BITS));
    assert_eq!(round_trip(&values).len(), 8);
}
