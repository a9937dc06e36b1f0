//! What the store holds, under the key that it holds it.

use coordinator::store::record::seal_text;
use coordinator::verify_record;

/// A key and a value, damaged or with a sound envelope: what it holds is read, or refused.
pub(crate) fn stored(bytes: &[u8]) {
    let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (key, value) = (String::from_utf8_lossy(&bytes[..at]), &bytes[at + 1..]);
    let _ = verify_record(&key, value);
    let _ = verify_record(&key, &seal_text(value));
    let _ = verify_record(&key, &coordinator::store::record::seal(value));
}

pub(crate) fn written() -> Vec<Vec<u8>> {
    let hash = "00000000000000000000000000000007";
    let table = format!("a.b@{hash}");
    let batch = format!("{table}:0-86400000");
    let records = [
        ("r1/schema".to_owned(), r#"{"format":1}"#.to_owned()),
        (
            "r1/env/prod".to_owned(),
            format!(r#"{{"seq":3,"plan":"{hash}","set":"{hash}","previous":null,"views_done":true}}"#),
        ),
        (
            format!("r1/plan/{hash}"),
            format!(
                r#"{{"environment":"prod","state":"failed","body":"{hash}","created":5,"materialised":true,"history":[{{"at":6,"what":"x","by":"me"}}],"restatement":{{"aside":true,"round":2}}}}"#
            ),
        ),
        (
            format!("r1/plan/{hash}"),
            format!(r#"{{"environment":"prod","state":"planned","body":"{hash}","created":5}}"#),
        ),
        (
            format!("r1/lease/{:020}", 9),
            format!(
                r#"{{"worker":"w-1","plan":"{hash}","serves":["{hash}"],"attempts":1,"losses":0,"work":{{"batch":{{"batch":"{batch}","mode":"Write"}}}}}}"#
            ),
        ),
        (format!("r1/setback/{hash}/wait/{batch}"), r#"{"attempts":1,"losses":0,"delay":5}"#.to_owned()),
        (
            format!("r1/promotion/prod/{:020}", 3),
            format!(r#"{{"plan":"{hash}","set":"{hash}","at":1,"by":"me"}}"#),
        ),
        (format!("r1/kept/{hash}"), r#"{"until":5,"ttl":"1 week","gateway":"local"}"#.to_owned()),
        (format!("r1/todo/{hash}/{table}"), r#"{"ranges":[[0,86400000]],"create":true}"#.to_owned()),
        (format!("r1/iv/{table}"), "\u{0}\u{0}\u{2}\u{3}\u{1}".to_owned()),
        (format!("r1/blob/{hash}/00000000"), "\u{1}\u{3}\u{0}".to_owned()),
        (format!("r1/lost/{batch}"), "true".to_owned()),
        (format!("r1/auto/{table}"), "17".to_owned()),
    ];
    records.iter().map(|(key, value)| format!("{key}\n{value}").into_bytes()).collect()
}
