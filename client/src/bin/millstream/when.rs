//! Moments as people write them: how long ago, or when.

use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// A moment in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) unix_us: i64,
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, Timestamp::now())
    }
}

/// `now` is what durations count back from. A time without an offset is local.
fn parse(text: &str, now: Timestamp) -> Result<Moment, String> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(Moment {
            unix_us: timestamp.as_microsecond(),
        });
    }
    if let Ok(local) = text.parse::<DateTime>() {
        let zoned = local
            .to_zoned_datetime(TimeZone::system())
            .map_err(|error| error.to_string())?;
        return Ok(Moment {
            unix_us: zoned.timestamp().as_microsecond(),
        });
    }
    let span: Span = text
        .parse()
        .map_err(|_| "give how long ago (30s, 5m, 1h30m, 2d) or a time (2026-11-24T09:00:00Z)".to_owned())?;
    // Days and weeks are counted as 24 hours and 7 days, so that the answer needs no time zone.
    let then = now
        .to_zoned_datetime(TimeZone::UTC)
        .checked_sub(span.abs())
        .map_err(|error| error.to_string())?;
    Ok(Moment {
        unix_us: then.timestamp().as_microsecond(),
    })
}

/// A capture time for people and programs: RFC 3339 in UTC with microseconds. A time that no calendar
/// has (a hostile block can claim one) is shown as its number.
pub(crate) fn rfc3339(unix_us: i64) -> String {
    match Timestamp::from_microsecond(unix_us) {
        Ok(timestamp) => format!("{timestamp:.6}"),
        Err(_) => format!("{unix_us}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_count_back_from_now_and_times_are_taken_as_written() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (text, seconds) in [
            ("5m", 1_000_000 - 300),
            ("1h30m", 1_000_000 - 5400),
            ("2d", 1_000_000 - 172_800),
            ("30s", 1_000_000 - 30),
            ("1970-01-02T00:00:00Z", 86_400),
            ("1970-01-02T01:00:00+01:00", 86_400),
        ] {
            assert_eq!(
                parse(text, now),
                Ok(Moment {
                    unix_us: seconds * 1_000_000
                }),
                "{text}"
            );
        }
        assert!(parse("yesterday-ish", now).unwrap_err().contains("how long ago"));
    }

    #[test]
    fn times_are_printed_with_microseconds() {
        assert_eq!(rfc3339(1_764_000_000_000_042), "2025-11-24T16:00:00.000042Z");
        assert_eq!(rfc3339(i64::MAX), format!("{}us", i64::MAX));
    }
}
