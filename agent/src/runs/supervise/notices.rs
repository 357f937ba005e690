//! What a supervisor has to say in the stream that it writes, on its way to the one task that writes it.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::runs::Cost;

/// Notices that wait while the spool is full or the disk is. More are dropped: the run's output comes first.
const MAX_WAITING: usize = 64;

/// Where notices are said. Clones say to the same stream.
#[derive(Debug, Clone)]
pub(super) struct Notices(mpsc::Sender<String>);

impl Notices {
    /// And where they come out.
    pub(super) fn new() -> (Self, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self(sender), receiver)
    }

    /// "kind: sentence".
    pub(super) fn say(&self, notice: String) {
        // Full, or nobody writes any more: see above.
        let _ = self.0.try_send(notice);
    }
}

/// A notice as the spool has it: one line, whatever was in it.
pub(super) fn line(notice: &str) -> Vec<u8> {
    let mut line = notice.replace(['\n', '\r'], " ").into_bytes();
    line.push(b'\n');
    line
}

/// "3 min 12 s", for people.
pub(super) fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) if seconds < 10 => format!("{:.1} s", duration.as_secs_f64()),
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {} s", seconds % 60),
        _ => format!("{hours} h {minutes} min"),
    }
}

/// "; peak memory 120 MiB, processor time 35 s": what is known of it.
pub(super) fn spoken_cost(cost: Cost) -> String {
    let mut parts = Vec::new();
    if cost.peak_memory_bytes > 0 {
        parts.push(format!(
            "peak memory {} MiB",
            cost.peak_memory_bytes.div_ceil(1 << 20)
        ));
    }
    if cost.cpu_time_us > 0 {
        parts.push(format!(
            "processor time {}",
            spoken(Duration::from_micros(cost.cpu_time_us))
        ));
    }
    if parts.is_empty() {
        String::new()
    } else {
        format!("; {}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_costs_are_in_words() {
        let cases = [
            (1_250, "1.2 s"),
            (42_000, "42 s"),
            (192_000, "3 min 12 s"),
            (7_260_000, "2 h 1 min"),
        ];
        for (milliseconds, words) in cases {
            assert_eq!(spoken(Duration::from_millis(milliseconds)), words);
        }
        let cost = Cost {
            peak_memory_bytes: 5 << 20,
            cpu_time_us: 1_500_000,
        };
        assert_eq!(spoken_cost(cost), "; peak memory 5 MiB, processor time 1.5 s");
        assert_eq!(spoken_cost(Cost::default()), "");
    }

    #[test]
    fn a_notice_is_one_line() {
        assert_eq!(line("control: a\nb\r"), b"control: a b \n");
    }
}
