#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coord_fuzz::write_seeds("plan_json"),
    |bytes: &[u8]| coord_fuzz::run("plan_json", bytes)
);
