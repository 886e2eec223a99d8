//! See `tsdb::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (tsdb::fuzz::target("block_chunks").run)(bytes));
