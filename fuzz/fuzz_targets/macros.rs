#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coord_fuzz::write_seeds("macros"),
    |bytes: &[u8]| coord_fuzz::run("macros", bytes)
);
