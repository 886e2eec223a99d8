//! See the module of its function.
#![no_main]

#[path = "../src/query.rs"]
#[expect(dead_code, reason = "the other target's part")]
mod query_targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    query_targets::parser(bytes);
});
