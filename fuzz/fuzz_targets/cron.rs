#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coord_fuzz::write_seeds("cron"),
    |bytes: &[u8]| coord_fuzz::run("cron", bytes)
);
