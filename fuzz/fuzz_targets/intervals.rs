#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coord_fuzz::write_seeds("intervals"),
    |bytes: &[u8]| coord_fuzz::run("intervals", bytes)
);
