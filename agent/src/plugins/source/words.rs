//! A plugin's words and faults in the agent's log, few enough to be read.

use std::time::Instant;

use tokio::io::AsyncRead;
use tracing::info;

use super::super::reader::{LineReader, Part};
use crate::text::harmless;

/// Faults that are reported each; after that each doubling of their number.
const REPORT_EACH: u64 = 10;

/// Lines of a plugin's own log at once, and in a second after that.
const LOG_BURST: f64 = 50.0;
const LOG_PER_SECOND: f64 = 5.0;

const SHOWN_BYTES: usize = 500;

/// What is wrong with a plugin's output, by line number.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    line: u64,
    count: u64,
}

impl Complaints {
    pub(super) fn next_line(&mut self) {
        self.line += 1;
    }

    /// What to say of a fault of the present line; `None`: enough was said.
    pub(super) fn say(&mut self, problem: &str) -> Option<String> {
        self.count += 1;
        let problem = harmless(problem.as_bytes(), SHOWN_BYTES);
        if self.count <= REPORT_EACH {
            return Some(format!("line {} of its output: {problem}", self.line));
        }
        self.count.is_power_of_two().then(|| {
            format!(
                "line {} of its output: {problem} ({} lines were not taken so far; not each is reported)",
                self.line, self.count
            )
        })
    }
}

/// Standard error of a plugin.
#[derive(Debug)]
pub(super) struct PluginLog {
    source: String,
    last: String,
    tokens: f64,
    refilled: Instant,
    suppressed: u64,
}

impl PluginLog {
    pub(super) fn new(source: String) -> Self {
        Self {
            source,
            last: String::new(),
            tokens: LOG_BURST,
            refilled: Instant::now(),
            suppressed: 0,
        }
    }

    /// Logs everything that was read. False: nothing follows.
    pub(super) fn take<R: AsyncRead + Unpin>(&mut self, reader: &mut LineReader<R>) -> bool {
        while let Some(part) = reader.take() {
            match part {
                Part::Line(text) | Part::Open(text) => self.log(text),
                Part::More { .. } => {}
                Part::End => return false,
            }
        }
        true
    }

    fn log(&mut self, text: &[u8]) {
        let text = harmless(text.trim_ascii_end(), SHOWN_BYTES);
        if text.is_empty() {
            return;
        }
        let elapsed = self.refilled.elapsed().as_secs_f64();
        self.refilled = Instant::now();
        self.tokens = (self.tokens + elapsed * LOG_PER_SECOND).min(LOG_BURST);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            if self.suppressed > 0 {
                info!(
                    "source {}: {} lines of the plugin's log were left out",
                    self.source, self.suppressed
                );
                self.suppressed = 0;
            }
            info!("source {}: {text}", self.source);
        } else {
            self.suppressed += 1;
        }
        self.last = text;
    }

    /// The last line, as the end of a sentence.
    pub(super) fn last_words(&self) -> String {
        if self.last.is_empty() {
            return String::new();
        }
        let mut last = self.last.clone();
        crate::text::truncate(&mut last, 200);
        format!(": {last}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_is_always_wrong_is_reported_now_and_then() {
        let mut complaints = Complaints::default();
        let mut said = Vec::new();
        for _ in 0..1000 {
            complaints.next_line();
            said.extend(complaints.say("not JSON"));
        }
        assert_eq!(said.len(), 10 + 6);
        assert_eq!(said[0], "line 1 of its output: not JSON");
        assert!(said[15].starts_with("line 512 ") && said[15].contains("512 lines were not taken"));
    }

    #[test]
    fn a_plugin_that_babbles_fills_no_log() {
        let mut log = PluginLog::new("x".to_owned());
        for number in 0..1000 {
            log.log(format!("line {number}\x1b[31m").as_bytes());
        }
        assert!(log.suppressed > 900);
        assert_eq!(log.last_words(), ": line 999\\u{1b}[31m");
    }
}
