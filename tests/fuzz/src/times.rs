//! Crons, times and formats as people write them.

use coord_common::interval::{self, Cadence, IntervalUnit, Timestamp};

/// 2024-05-17 13:45:06.789, a Friday.
const NOW: Timestamp = Timestamp(1_715_953_506_789);
const ZONES: [Option<&str>; 6] = [
    None,
    Some("UTC"),
    Some("Europe/Berlin"),
    Some("Asia/Kathmandu"),
    Some("Australia/Lord_Howe"),
    Some("nowhere"),
];
/// Around the ends of what can be told, a leap day, and changes of clocks.
const TIMES: [i64; 10] = [
    i64::MIN,
    -62_135_596_800_000,
    -1,
    0,
    1_709_164_800_000,
    1_711_846_800_000,
    1_729_987_200_000,
    NOW.0,
    253_402_300_799_999,
    i64::MAX,
];

/// A cron in a zone: ticks move on, and a floor lies on a tick.
pub(crate) fn cron(bytes: &[u8]) {
    let Some((zone, text)) = super::choice(bytes) else { return };
    let Ok(cadence) = Cadence::parse(&text, ZONES[zone % ZONES.len()]) else { return };
    let _ = cadence.unit();
    for at in TIMES.map(Timestamp) {
        let (floor, next, before) = (cadence.floor(at), cadence.next(at), cadence.prev(at));
        let _ = cadence.on_clock(at);
        let inside = at > Timestamp(0) && at < Timestamp(4_000_000_000_000);
        if inside {
            assert!(floor <= at, "`{text}`: {floor} is the floor of {at}");
            assert!(next > at, "`{text}`: {next} follows {at}");
            assert!(before < at, "`{text}`: {before} precedes {at}");
        }
    }
    let _ = interval::default_start(&cadence, NOW);
}

/// A time, a range's ends, a time format.
pub(crate) fn time(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for now in TIMES.map(Timestamp) {
        if let Ok(point) = interval::parse_time(&text, now) {
            assert!(point.at >= Timestamp::MIN && point.at <= Timestamp::MAX, "`{text}` is {point:?}");
            let shown = point.at.to_string();
            let back = interval::parse_time(&shown, NOW).map(|back| back.at);
            assert_eq!(back, Ok(point.at), "`{text}` shown as {shown}");
        }
        let _ = (interval::range_start(&text, now), interval::range_end(&text, now));
        let _ = interval::format_time(&text, interval::inclusive_end(now));
        for unit in [IntervalUnit::Year, IntervalUnit::Month, IntervalUnit::Day, IntervalUnit::Hour] {
            let _ = (unit.floor(now), unit.next(now), unit.prev(now), unit.add_units(now, text.len() as i64));
        }
    }
}

pub(crate) fn crons() -> Vec<Vec<u8>> {
    let texts = [
        "@daily",
        "@hourly",
        "@weekly",
        "@monthly",
        "@yearly",
        "*/5 * * * *",
        "0 6 * * 1-5",
        "30 2 31 * *",
        "0 0 29 2 *",
        "60 * * * *",
        "0 0 30 2 *",
        "15,45 1-3 * jan-mar mon",
        "*/15 */2 1 */3 *",
        "0 12 * * 7",
    ];
    texts.iter().enumerate().map(|(n, text)| super::chosen(n as u8, text)).collect()
}

pub(crate) fn times() -> Vec<Vec<u8>> {
    let texts = [
        "2024-01-31",
        "20240131",
        "2024-01-31 06:00:00",
        "2024-01-31T06:00:00.123456Z",
        "2024-01-31 06:00:00+05:30",
        "1706659200000",
        "yesterday",
        "tomorrow",
        "now",
        "today",
        "1 week ago",
        "2 days ago",
        "3 hours ago",
        "last week",
        "1 month ago",
        "in 2 days",
        "10 years ago",
        "%Y-%m-%d %H:%M:%S.%f",
        "%j %U %Z %%",
        "1 day",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
