//! The fuzz targets over mutations of sound inputs, with the same choices in every run: what a machine without a fuzzer can
//! do. `NILOMETER_MUTATIONS` is the number for the cheapest target (default 10 000).

use super::mutate::{Random, mutate};
use super::*;

fn mutations(name: &str) {
    let target = target(name);
    let number = std::env::var("NILOMETER_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000u32);
    let seeds = (target.seeds)();
    assert!(seeds.iter().any(|seed| !seed.is_empty()), "there is something to start from");
    for seed in &seeds {
        (target.run)(seed);
        for len in 0..seed.len().min(64) {
            (target.run)(&seed[..len]);
        }
    }
    let mut random = Random::new(1);
    for _ in 0..number.div_ceil(target.cost) {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        mutate(&mut bytes, &seeds, &mut random);
        let input = bytes.clone();
        let result = std::panic::catch_unwind(move || (target.run)(&bytes));
        if result.is_err() {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("{name} panicked on {hex}");
        }
    }
}

/// Writes the sound inputs to `NILOMETER_SEEDS/<target>/`, where one is given: a fuzzer starts from them.
#[test]
fn seeds_for_the_fuzzer() {
    let Some(dir) = std::env::var_os("NILOMETER_SEEDS") else { return };
    for target in TARGETS {
        let dir = Path::new(&dir).join(target.name);
        std::fs::create_dir_all(&dir).unwrap();
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}

/// Every target by a test of its own, so that they run beside each other.
macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test] fn $name() { mutations(stringify!($name)); })*

        #[test]
        fn every_target_is_tested() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), tested);
        }
    };
}

tests!(wal_record wal_segment wal_commits checkpoint chunk columns frame meta tombstones block_index block_chunks);
