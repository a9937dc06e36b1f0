#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coord_fuzz::write_seeds("unit_tests"),
    |bytes: &[u8]| coord_fuzz::run("unit_tests", bytes)
);
