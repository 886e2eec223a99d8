//! See the library beside it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    nilometer_fuzz::remote_write(bytes);
});
