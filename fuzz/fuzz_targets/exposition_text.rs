//! See the module of its function.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    scraper::fuzz::text(bytes);
});
