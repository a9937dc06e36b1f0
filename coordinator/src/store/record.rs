//! How values are written: in an envelope with a version and a checksum, so that a flipped bit
//! is an error and never a wrong decision.

use coord_common::interval::{Interval, IntervalSet, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// The version of the envelope and of what this module puts in it.
const VERSION: u8 = 1;
/// The first byte of a text envelope: `1` for [`VERSION`].
const TEXT_VERSION: u8 = b'0' + VERSION;
/// `1:<8 hexadecimal digits>:` before the JSON.
const TEXT_HEAD: usize = 11;

/// A record as JSON that stays legible in `etcdctl`: `1:<checksum>:{…}`.
///
/// # Errors
/// [`StoreError::Invalid`] where the value has no JSON form (such as a map with keys that are no
/// texts).
pub fn encode_json<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let json = serde_json::to_vec(value)
        .map_err(|error| StoreError::Invalid(format!("a record has no JSON form: {error}")))?;
    Ok(seal_text(&json))
}

/// Wraps JSON, or what is taken for it.
pub fn seal_text(json: &[u8]) -> Vec<u8> {
    let mut record = text_head(TEXT_VERSION, json);
    record.extend_from_slice(json);
    record
}

/// Reads what [`encode_json`] wrote.
///
/// # Errors
/// [`StoreError::Corrupt`] with `key`, and [`StoreError::NewerSchema`] for a sound record of a
/// newer version.
pub(crate) fn decode_json<T: DeserializeOwned>(key: &str, record: &[u8]) -> Result<T, StoreError> {
    let (Some(head), Some(json)) = (record.get(..TEXT_HEAD), record.get(TEXT_HEAD..)) else {
        return Err(StoreError::corrupt(key, "it is cut off"));
    };
    if head != text_head(head[0], json) {
        return Err(StoreError::corrupt(key, "its checksum is wrong"));
    }
    known_version(key, head[0].wrapping_sub(b'0'))?;
    serde_json::from_slice(json).map_err(|error| StoreError::corrupt(key, error.to_string()))
}

fn text_head(version: u8, json: &[u8]) -> Vec<u8> {
    let mut head = vec![version];
    head.extend_from_slice(format!(":{:08x}:", crc(version, json)).as_bytes());
    head
}

/// Wraps bytes: one byte of version, the payload, four bytes of checksum.
pub fn seal(payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(payload.len() + 5);
    record.push(VERSION);
    record.extend_from_slice(payload);
    record.extend_from_slice(&crc(VERSION, payload).to_le_bytes());
    record
}

/// Unwraps what [`seal`] wrapped.
pub(crate) fn unseal<'a>(key: &str, record: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let parts = record.split_first().and_then(|(version, rest)| Some((version, rest.split_last_chunk()?)));
    let Some((version, (payload, sum))) = parts else {
        return Err(StoreError::corrupt(key, "it is cut off"));
    };
    if crc(*version, payload) != u32::from_le_bytes(*sum) {
        return Err(StoreError::corrupt(key, "its checksum is wrong"));
    }
    known_version(key, *version)?;
    Ok(payload)
}

fn known_version(key: &str, found: u8) -> Result<(), StoreError> {
    match found {
        VERSION => Ok(()),
        0 => Err(StoreError::corrupt(key, "it has no version")),
        newer => Err(StoreError::NewerSchema { found: newer.into(), known: VERSION.into() }),
    }
}

/// CRC-32 finds every flip of one bit, and every burst of up to 32.
fn crc(version: u8, payload: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(&[version]);
    crc.update(payload);
    crc.sum()
}

/// What a time may be counted in, largest first, in milliseconds.
const UNITS: [i64; 5] = [86_400_000, 3_600_000, 60_000, 1000, 1];

/// An interval set in few bytes: the largest unit that fits all of its bounds, then the gap before
/// each range and its length as varints. One range of whole seconds takes at most 16 bytes.
pub(crate) fn encode_intervals(set: &IntervalSet) -> Vec<u8> {
    seal(&interval_payload(set))
}

fn interval_payload(set: &IntervalSet) -> Vec<u8> {
    let bounds = || set.ranges().iter().flat_map(|range| [range.start.0, range.end.0]);
    let unit = UNITS.iter().position(|unit| bounds().all(|time| time % unit == 0)).unwrap_or(UNITS.len() - 1);
    let mut payload = vec![unit as u8];
    let mut last = 0;
    for (n, bound) in bounds().enumerate() {
        let bound = bound / UNITS[unit];
        let step = bound.wrapping_sub(last);
        // Only the first bound may lie before the one it is counted from.
        put_varint(&mut payload, if n == 0 { zigzag(step) } else { step as u64 });
        last = bound;
    }
    payload
}

/// Reads what [`encode_intervals`] wrote.
///
/// # Errors
/// [`StoreError::Corrupt`] with `key`, and [`StoreError::NewerSchema`] for a sound record of a
/// newer version.
pub fn decode_intervals(key: &str, record: &[u8]) -> Result<IntervalSet, StoreError> {
    let payload = unseal(key, record)?;
    read_intervals(payload).ok_or_else(|| StoreError::corrupt(key, "its intervals are malformed"))
}

fn read_intervals(payload: &[u8]) -> Option<IntervalSet> {
    let (unit, mut rest) = payload.split_first()?;
    let unit = UNITS.get(usize::from(*unit))?;
    let mut ranges: Vec<Interval> = Vec::new();
    let mut last = 0_i64;
    while !rest.is_empty() {
        let gap = get_varint(&mut rest)?;
        let start = if ranges.is_empty() {
            unzigzag(gap)
        } else {
            last.checked_add_unsigned(gap).filter(|start| *start > last)?
        };
        last = start.checked_add_unsigned(get_varint(&mut rest)?)?;
        let (start, end) = (start.checked_mul(*unit)?, last.checked_mul(*unit)?);
        ranges.push(Interval::new(Timestamp(start), Timestamp(end))?);
    }
    Some(ranges.into_iter().collect())
}

/// An interval set as a field of a JSON record, in few characters:
/// `#[serde(with = "record::compact")]`. The record's own checksum covers it.
pub mod compact {
    use coord_common::interval::IntervalSet;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes the bytes of the set as hexadecimal digits.
    pub fn serialize<S: Serializer>(set: &IntervalSet, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = super::interval_payload(set).iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }

    /// Reads what [`serialize`] wrote.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IntervalSet, D::Error> {
        let digits = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        read(&digits).ok_or_else(|| de::Error::custom("malformed intervals"))
    }

    fn read(digits: &str) -> Option<IntervalSet> {
        let digits: Vec<u8> =
            digits.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
        let (pairs, rest) = digits.as_chunks::<2>();
        let payload: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        rest.is_empty().then(|| super::read_intervals(&payload))?
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends a number, seven bits a byte, the lowest first.
pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes a number off the front; nothing where it is cut off or too large.
pub(super) fn get_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits.leading_zeros() < shift {
            return None;
        }
        value |= bits << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: i64, end: i64) -> Interval {
        Interval { start: Timestamp(start), end: Timestamp(end) }
    }

    fn sets() -> impl Strategy<Value = IntervalSet> {
        let unit = prop::sample::select(UNITS.to_vec());
        let pieces = prop::collection::vec((-30_000i64..30_000, 1i64..900), 0..20);
        (unit, pieces).prop_map(|(unit, pieces)| {
            pieces.into_iter().map(|(start, length)| range(start * unit, (start + length) * unit)).collect()
        })
    }

    #[test]
    fn one_range_takes_few_bytes() {
        let cases = [
            (range(1_700_006_400_000, 1_794_614_400_000), 11), // days
            (range(1_700_000_000_000 - 800_000, 1_794_600_000_000), 16), // minutes or better
            (range(1_700_000_001_000, 1_794_600_002_000), 16), // seconds
            (range(1_700_000_000_001, 1_794_600_000_002), 18), // milliseconds
        ];
        for (range, limit) in cases {
            let size = encode_intervals(&range.into()).len();
            assert!(size <= limit, "{range}: {size}");
        }
    }

    #[test]
    fn the_widest_ranges_come_back() {
        for range in [Interval::ALL, range(i64::MIN, i64::MAX), range(i64::MIN, -1), range(0, i64::MAX)] {
            let set = IntervalSet::from(range);
            assert_eq!(decode_intervals("k", &encode_intervals(&set)), Ok(set));
        }
    }

    #[test]
    fn a_record_of_a_newer_version_asks_for_an_upgrade() {
        let mut newer = seal(b"x");
        newer[0] = 2;
        let sum = crc(2, b"x").to_le_bytes();
        newer[2..].copy_from_slice(&sum);
        assert_eq!(unseal("k", &newer), Err(StoreError::NewerSchema { found: 2, known: 1 }));
        let newer = [text_head(b'3', b"{}"), b"{}".to_vec()].concat();
        let read = decode_json::<serde_json::Value>("k", &newer);
        assert_eq!(read, Err(StoreError::NewerSchema { found: 3, known: 1 }));
    }

    proptest! {
        #[test]
        fn interval_sets_come_back(set in sets()) {
            prop_assert_eq!(decode_intervals("k", &encode_intervals(&set)), Ok(set));
        }

        #[test]
        fn interval_sets_in_json_come_back(set in sets()) {
            #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
            struct Done {
                #[serde(with = "compact")]
                done: IntervalSet,
                generation: u32,
            }
            let done = Done { done: set, generation: 3 };
            let record = encode_json(&done).unwrap();
            prop_assert_eq!(decode_json("k", &record), Ok(done));
        }

        #[test]
        fn a_flipped_bit_is_found(set in sets(), at in any::<prop::sample::Index>()) {
            let mut record = encode_intervals(&set);
            let bit = at.index(record.len() * 8);
            record[bit / 8] ^= 1 << (bit % 8);
            let found = decode_intervals("the/key", &record);
            let named = matches!(&found, Err(StoreError::Corrupt { key, .. }) if key == "the/key");
            prop_assert!(named, "{:?}", found);
        }

        #[test]
        fn a_flipped_bit_in_json_is_found(text in ".{0,40}", at in any::<prop::sample::Index>()) {
            let mut record = encode_json(&text).unwrap();
            prop_assert_eq!(decode_json::<String>("k", &record), Ok(text));
            let bit = at.index(record.len() * 8);
            record[bit / 8] ^= 1 << (bit % 8);
            let found = decode_json::<String>("k", &record);
            let corrupt = matches!(found, Err(StoreError::Corrupt { .. }));
            prop_assert!(corrupt, "{:?}", found);
        }

        #[test]
        fn no_bytes_make_it_panic(payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode_intervals("k", &payload);
            if let Ok(set) = decode_intervals("k", &seal(&payload)) {
                prop_assert!(set.ranges().windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }

        #[test]
        fn varints_come_back(value in any::<u64>()) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(get_varint(&mut bytes.as_slice()), Some(value));
        }
    }
}
