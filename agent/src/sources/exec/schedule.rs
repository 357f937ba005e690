//! When an `exec` source starts by the clock: `every 10m`, or five fields of cron in the host's time zone.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use jiff::ZonedDateTime;

use super::host_time::HostTime;
use crate::config::parse_duration;

/// Shorter ones are a loop, which `restart = "always"` is for.
const SHORTEST: Duration = Duration::from_secs(1);

/// One schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    when: When,
}

#[derive(Debug, Clone)]
enum When {
    Every(Duration),
    // Large, and there is one a source.
    Cron(Box<Cron>),
}

impl Schedule {
    /// # Errors
    /// A sentence on what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let when = if let Some(interval) = text.strip_prefix("every ") {
            let interval = parse_duration(interval.trim())?;
            if interval < SHORTEST {
                return Err(format!(
                    "schedule {text:?} is shorter than 1 s; restart = \"always\" runs again at once"
                ));
            }
            When::Every(interval)
        } else {
            let cron = Cron::from_str(text).map_err(|error| {
                format!(
                    "schedule {text:?} is neither \"every 10m\" nor five fields of cron like \"30 3 * * 1-5\": {error}"
                )
            })?;
            When::Cron(Box::new(cron))
        };
        Ok(Self {
            text: text.to_owned(),
            when,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How long after `now` it is time; `None`: never again.
    #[must_use]
    pub fn wait_from(&self, now: &ZonedDateTime) -> Option<Duration> {
        match &self.when {
            When::Every(interval) => Some(*interval),
            When::Cron(cron) => {
                let next = cron.find_next_occurrence(&HostTime(now.clone()), false).ok()?;
                // Never negative: the next occurrence is after now.
                Duration::try_from(now.duration_until(&next.0)).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> ZonedDateTime {
        text.parse().unwrap()
    }

    #[test]
    fn an_interval_is_what_it_says() {
        let schedule = Schedule::parse("every 10m").unwrap();
        let now = at("2026-11-25T10:00:00+00:00[UTC]");
        assert_eq!(schedule.wait_from(&now), Some(Duration::from_secs(600)));
    }

    #[test]
    fn cron_is_in_the_zone_of_the_clock_that_it_is_asked_for() {
        let schedule = Schedule::parse("30 3 * * 1-5").unwrap();
        // A Wednesday; the next weekday's 3:30 is tomorrow.
        let now = at("2026-11-25T10:00:00+01:00[Europe/Berlin]");
        let hours = schedule.wait_from(&now).unwrap().as_secs_f64() / 3600.0;
        assert!((hours - 17.5).abs() < 0.01, "{hours}");
        // Friday evening: Monday.
        let now = at("2026-11-27T20:30:00+01:00[Europe/Berlin]");
        let hours = schedule.wait_from(&now).unwrap().as_secs_f64() / 3600.0;
        assert!((hours - 55.0).abs() < 0.01, "{hours}");
    }

    #[test]
    fn what_is_no_schedule_says_what_to_write() {
        for text in [
            "",
            "10m",
            "every",
            "every 1 fortnight",
            "61 * * * *",
            "every 10ms",
        ] {
            let error = Schedule::parse(text).unwrap_err();
            assert!(
                error.contains("every") || error.contains("write"),
                "{text:?} gave {error:?}"
            );
        }
    }
}
