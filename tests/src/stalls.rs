//! When the machine itself stood still (`millstream-stalls`), so that a measurement of latencies can leave out what came of that.

use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::process::Process;

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Stalls {
    process: Process,
    /// The same moment on the clock of this process and on that of the machine.
    began: (Instant, Duration),
}

impl Stalls {
    /// `program`: the path of `millstream-stalls`, which gets a real-time policy; only root may give it.
    pub fn watch(program: &str, log_dir: &Path) -> Self {
        let mut command = Command::new("chrt");
        command.args(["--fifo", "1", program]).stdin(Stdio::piped());
        let process = Process::start("stalls", log_dir, &mut command);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            process,
            began: (Instant::now(), now.expect("the clock is right")),
        }
    }

    /// Those until now, in their order, of all processors together.
    ///
    /// # Panics
    /// When nobody watches: the process could not have its policy.
    pub fn so_far(&mut self) -> Vec<Range<Instant>> {
        assert!(self.process.ended().is_none(), "{}", self.process.stderr());
        let text = String::from_utf8_lossy(&self.process.stdout()).into_owned();
        let (instant, unix) = self.began;
        let at = |unix_us: &str| {
            let time = Duration::from_micros(unix_us.parse().ok()?);
            Some(instant + time.saturating_sub(unix))
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut found: Vec<Range<Instant>> = whole
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(from, until)| Some(at(from)?..at(until)?))
            .collect();
        found.sort_unstable_by_key(|stall| stall.start);
        let mut merged: Vec<Range<Instant>> = Vec::new();
        for stall in found {
            match merged.last_mut() {
                Some(last) if stall.start <= last.end => last.end = last.end.max(stall.end),
                _ => merged.push(stall),
            }
        }
        merged
    }
}

/// Whether one of the stalls, in their order, falls into a time.
pub fn is_within(stalls: &[Range<Instant>], time: &Range<Instant>) -> bool {
    let first = stalls.partition_point(|stall| stall.end < time.start);
    stalls.get(first).is_some_and(|stall| stall.start <= time.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stall_touches_is_within_and_what_it_does_not_is_not() {
        let begin = Instant::now();
        let time = |from, until| begin + Duration::from_millis(from)..begin + Duration::from_millis(until);
        let stalls = [time(10, 20), time(30, 31)];
        for (found, from, until) in [
            (false, 0, 9),
            (true, 5, 10),
            (true, 12, 13),
            (true, 20, 25),
            (false, 21, 29),
            (true, 25, 40),
            (false, 32, 50),
        ] {
            assert_eq!(is_within(&stalls, &time(from, until)), found, "{from} to {until}");
        }
        assert!(!is_within(&[], &time(0, 1)));
    }
}
