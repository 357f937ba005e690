//! Times in front of lines and JSON objects, as manifests declare them.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::super::manifest::{JsonFields, LineTime};
use super::super::timestamp;

/// A line with a time in front.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::plugins) struct TimePrefix<'a> {
    /// The time as it was written, for resuming.
    pub(in crate::plugins) text: &'a str,
    /// For comparing; its unit is the format's.
    pub(in crate::plugins) key: i64,
    pub(in crate::plugins) unix_us: Option<i64>,
    pub(in crate::plugins) rest: &'a [u8],
}

/// Takes the time off; `None` when there is none.
pub(in crate::plugins) fn time_prefix(line: &[u8], format: LineTime) -> Option<TimePrefix<'_>> {
    match format {
        LineTime::None => None,
        LineTime::Rfc3339 => {
            let end = memchr::memchr(b' ', &line[..line.len().min(64)]).unwrap_or(line.len());
            let text = std::str::from_utf8(&line[..end]).ok()?;
            let (key, unix_us) = timestamp::rfc3339_nanoseconds(text)?;
            Some(TimePrefix {
                text,
                key,
                unix_us: Some(unix_us),
                rest: line.get(end + 1..).unwrap_or_default(),
            })
        }
        LineTime::SinceBoot => {
            let inside = line.strip_prefix(b"[")?;
            let end = memchr::memchr(b']', &inside[..inside.len().min(32)])?;
            let text = std::str::from_utf8(&inside[..end]).ok()?;
            let key = timestamp::seconds(text.as_bytes())?;
            let rest = &inside[end + 1..];
            Some(TimePrefix {
                text: text.trim(),
                key,
                unix_us: boot_unix_us().map(|boot| boot + key),
                rest: rest.strip_prefix(b" ").unwrap_or(rest),
            })
        }
    }
}

/// When the machine started, microseconds since the Unix epoch.
fn boot_unix_us() -> Option<i64> {
    static BOOT: OnceLock<Option<i64>> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        line.trim().parse::<i64>().ok()?.checked_mul(1_000_000)
    })
}

/// One object of output.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::plugins) struct Entry {
    /// May hold newlines.
    pub(in crate::plugins) text: Vec<u8>,
    pub(in crate::plugins) time_unix_us: Option<i64>,
    pub(in crate::plugins) checkpoint: Option<String>,
}

/// # Errors
/// A sentence for the manifest's author.
pub(in crate::plugins) fn json(line: &[u8], fields: &JsonFields) -> Result<Entry, String> {
    let object: Map<String, Value> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    for prefix in &fields.prefix {
        let value = prefix.fields.iter().find_map(|field| object.get(field));
        if value.is_some() || prefix.fields.is_empty() {
            text.extend_from_slice(prefix.before.as_bytes());
            value.map_or(Ok(()), |value| append(&mut text, value))?;
            text.extend_from_slice(prefix.after.as_bytes());
        }
    }
    if let Some(value) = object.get(&fields.text) {
        append(&mut text, value).map_err(|problem| format!("field {}: {problem}", fields.text))?;
    }
    let time_unix_us =
        fields
            .time
            .as_ref()
            .and_then(|field| object.get(field))
            .and_then(|value| match value {
                Value::Number(number) => number.as_i64(),
                Value::String(text) => text.parse().ok().or_else(|| timestamp::rfc3339(text.as_bytes())),
                _ => None,
            });
    let checkpoint = match fields.checkpoint.as_ref() {
        None => None,
        Some(field) => match object.get(field) {
            Some(Value::String(text)) if text.len() <= super::super::protocol::MAX_CHECKPOINT_BYTES => {
                Some(text.clone())
            }
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => {
                return Err(format!(
                    "the object has no field {field} that can be a checkpoint"
                ));
            }
        },
    };
    Ok(Entry {
        text,
        time_unix_us,
        checkpoint,
    })
}

/// Text, numbers, and bytes as `journalctl` writes what is no UTF-8: a list of numbers.
fn append(text: &mut Vec<u8>, value: &Value) -> Result<(), String> {
    match value {
        Value::String(value) => text.extend_from_slice(value.as_bytes()),
        Value::Null => {}
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                match item.as_u64().map(u8::try_from) {
                    Some(Ok(byte)) => text.push(byte),
                    // A field that is there several times.
                    _ => {
                        if index > 0 {
                            text.push(b' ');
                        }
                        append(text, item)?;
                    }
                }
            }
        }
        Value::Number(number) => text.extend_from_slice(number.to_string().as_bytes()),
        Value::Bool(truth) => text.extend_from_slice(truth.to_string().as_bytes()),
        Value::Object(_) => return Err("it is an object, not text".to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn journald() -> JsonFields {
        toml::from_str(
            "text = 'MESSAGE'\ntime = '__REALTIME_TIMESTAMP'\ncheckpoint = '__CURSOR'\n\
             prefix = [{ fields = ['A', 'B'] }, { fields = ['P'], before = '[', after = ']' }, { fields = [], after = ': ' }]",
        )
        .unwrap()
    }

    #[test]
    fn an_object_becomes_a_line() {
        let line =
            br#"{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"17","B":"nginx","P":"12","MESSAGE":"hi"}"#;
        let entry = json(line, &journald()).unwrap();
        assert_eq!(entry.text, b"nginx[12]: hi");
        assert_eq!(
            (entry.time_unix_us, entry.checkpoint.as_deref()),
            (Some(17), Some("s=1;i=2"))
        );
        let bytes = json(br#"{"__CURSOR":"c","MESSAGE":[255,10,65]}"#, &journald()).unwrap();
        assert_eq!(bytes.text, b": \xff\nA");
        assert!(
            json(br#"{"MESSAGE":"x"}"#, &journald())
                .unwrap_err()
                .contains("__CURSOR")
        );
        assert!(json(b"[]", &journald()).is_err());
    }

    #[test]
    fn times_are_taken_off_lines() {
        let prefix = time_prefix(b"1970-01-01T00:00:01.000000002Z hello", LineTime::Rfc3339).unwrap();
        assert_eq!(
            (prefix.key, prefix.unix_us, prefix.rest),
            (1_000_000_002, Some(1_000_000), &b"hello"[..])
        );
        // An empty line of docker's.
        assert_eq!(
            time_prefix(b"1970-01-01T00:00:01Z ", LineTime::Rfc3339)
                .unwrap()
                .rest,
            b""
        );
        let prefix = time_prefix(b"[    1.457490] EXT4-fs (vda): mounted", LineTime::SinceBoot).unwrap();
        assert_eq!(
            (prefix.key, prefix.text, prefix.rest),
            (1_457_490, "1.457490", &b"EXT4-fs (vda): mounted"[..])
        );
        assert_eq!(time_prefix(b"hello", LineTime::Rfc3339), None);
        assert_eq!(time_prefix(b"[x] hello", LineTime::SinceBoot), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = time_prefix(&bytes, LineTime::Rfc3339);
            let _ = time_prefix(&bytes, LineTime::SinceBoot);
            let _ = json(&bytes, &journald());
        }
    }
}
