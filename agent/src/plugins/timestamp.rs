//! Times that programs print: RFC 3339 and seconds since boot.

use jiff::Timestamp;

/// Microseconds since the Unix epoch; also with a comma as the decimal mark, as `dmesg` and Python write it.
pub(super) fn rfc3339(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.len() > 64 {
        return None;
    }
    let parsed: Result<Timestamp, _> = if text.contains(',') {
        text.replacen(',', ".", 1).parse()
    } else {
        text.parse()
    };
    parsed.ok().map(Timestamp::as_microsecond)
}

/// Nanoseconds, for comparing what several lines of one microsecond have, and microseconds.
pub(super) fn rfc3339_nanoseconds(text: &str) -> Option<(i64, i64)> {
    let parsed: Timestamp = text.parse().ok()?;
    let nanoseconds = i64::try_from(parsed.as_nanosecond()).ok()?;
    Some((nanoseconds, parsed.as_microsecond()))
}

/// Seconds with a fraction, as the kernel prints them, in microseconds.
pub(super) fn seconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || whole.len() > 12 || fraction.len() > 9 {
        return None;
    }
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let whole: i64 = whole.parse().ok()?;
    Some(whole * 1_000_000 + micros.parse::<i64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_of_real_tools_are_understood() {
        assert_eq!(rfc3339(b"1970-01-01T00:00:01.5Z"), Some(1_500_000));
        // docker
        assert_eq!(rfc3339(b"1970-01-01T00:00:01.123456789Z"), Some(1_123_456));
        // dmesg --time-format=iso
        assert_eq!(rfc3339(b"1970-01-01T01:00:01,123456+01:00"), Some(1_123_456));
        assert_eq!(rfc3339(b"yesterday"), None);
        assert_eq!(seconds(b"    1.457490"), Some(1_457_490));
        assert_eq!(seconds(b"12345"), Some(12_345_000_000));
        assert_eq!(seconds(b"-1.5"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = rfc3339(&bytes);
            let _ = seconds(&bytes);
        }
    }
}
