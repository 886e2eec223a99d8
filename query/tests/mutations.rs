//! The fuzz targets of parser and evaluator over mutations of sound queries, with the same choices in every run: what a
//! machine without a fuzzer can do. `NILOMETER_MUTATIONS` says how many (ten thousand is the short form of the parser; an
//! evaluation costs ten of those).

#[path = "../../fuzz/src/query.rs"]
#[expect(unreachable_pub, reason = "a library, included")]
mod target;

#[path = "../../tsdb/src/fuzz/mutate.rs"]
mod mutate;

use mutate::{Random, mutate};

/// Queries as people and scripts write them: those of the printer's test, and one for each corner of the evaluator.
fn seeds() -> Vec<Vec<u8>> {
    let lines = |text: &'static str| text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let printed = lines(include_str!("../testdata/print.txt")).map(|line| {
        let query = line.split('\t').next().unwrap_or_default();
        serde_json::from_str(query).expect("a JSON string")
    });
    let own = lines(include_str!("../testdata/fuzz_seeds.txt")).map(str::to_owned);
    let seeds: Vec<Vec<u8>> = own.chain(printed).map(String::into_bytes).collect();
    assert!(seeds.len() > 300, "there are seeds");
    seeds
}

fn mutations() -> usize {
    std::env::var("NILOMETER_MUTATIONS").map_or(10_000, |count| count.parse().expect("a number"))
}

/// How many of `count` mutated seeds, and how many seeds as they are, are queries.
fn play(count: usize, prefix: bool, run: fn(&[u8]) -> bool) -> (usize, usize) {
    let seeds = seeds();
    let input = |text: &[u8], times: usize| {
        let head = if prefix { vec![times as u8] } else { Vec::new() };
        [head, text.to_vec()].concat()
    };
    let sound = seeds.iter().enumerate().filter(|(index, seed)| run(&input(seed, *index))).count();
    let mut queries = 0;
    for index in 0..count {
        let mut random = Random::new(index as u64);
        let mut text = seeds[random.below(seeds.len())].clone();
        mutate(&mut text, &seeds, &mut random);
        let input = input(&text, random.below(256));
        let done = std::panic::catch_unwind(|| run(&input));
        queries += usize::from(done.unwrap_or_else(|_| panic!("mutation {index}: {}", input.escape_ascii())));
    }
    (sound, queries)
}

#[test]
fn texts_are_parsed_and_printed() {
    let count = mutations();
    let (sound, queries) = play(count, false, target::parser);
    assert!(sound > 300 && queries > count / 10, "{sound} {queries}: the inputs are worth something");
}

#[test]
fn queries_are_answered_or_refused() {
    let count = mutations() / 10;
    let (sound, queries) = play(count, true, target::evaluator);
    assert!(sound > 300 && queries > count / 10, "{sound} {queries}: the inputs are worth something");
}

/// Writes the sound inputs to `NILOMETER_SEEDS/<target>/`, where one is given: a fuzzer starts from them.
#[test]
fn seeds_for_the_fuzzer() {
    let Some(dir) = std::env::var_os("NILOMETER_SEEDS") else { return };
    for (target, prefix) in [("promql_parser", ""), ("promql_evaluator", "4")] {
        let dir = std::path::Path::new(&dir).join(target);
        std::fs::create_dir_all(&dir).expect("a folder");
        for (number, seed) in seeds().into_iter().enumerate() {
            let input = [prefix.as_bytes(), &seed].concat();
            std::fs::write(dir.join(format!("seed-{number}")), input).expect("a file");
        }
    }
}
