//! Sections of a test run: each is timed and counted, none stops the others, and the last line sums up.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::step;

/// So many of a failed section's last lines are told again at the end, where whoever sees only a log's end finds them.
const LAST_LINES: usize = 80;

#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

#[derive(Debug)]
struct Section {
    name: String,
    outcome: Outcome,
    took: Duration,
    counts: Counts,
    last_lines: Vec<String>,
}

/// Tests that a section's output reports.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    passed: u64,
    failed: u64,
}

#[derive(Debug)]
pub(super) struct Report {
    only: Vec<String>,
    sections: Vec<Section>,
}

impl Report {
    /// Sections whose name contains none of `only` are left out, unless it is empty.
    pub(super) fn new(only: Vec<String>) -> Self {
        Self {
            only,
            sections: Vec::new(),
        }
    }

    pub(super) fn wanted(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only.as_str()))
    }

    fn section(&mut self, name: &str, work: impl FnOnce(&mut Told) -> Result<()>) {
        if !self.wanted(name) {
            return;
        }
        eprintln!("\n######## {name}");
        let began = Instant::now();
        let mut told = Told::default();
        let outcome = match work(&mut told) {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                Outcome::Failed(format!("{error:#}"))
            }
        };
        let Told {
            mut counts,
            failed_tests,
            last_lines,
        } = told;
        // A check that counts nothing counts as one; a section can fail with no test failed (a build error).
        match outcome {
            Outcome::Passed if counts.passed == 0 => counts.passed = 1,
            Outcome::Failed(_) if counts.failed == 0 => counts.failed = 1,
            _ => {}
        }
        self.sections.push(Section {
            name: name.to_owned(),
            outcome,
            took: began.elapsed(),
            counts,
            last_lines: failed_tests.into_iter().chain(last_lines).collect(),
        });
    }

    /// A section that is a set-up step.
    pub(super) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        self.section(name, |_| work());
    }

    /// A section that is one command, whose output is shown and searched for numbers of tests.
    pub(super) fn command(&mut self, name: &str, command: impl FnOnce() -> Result<Command>) {
        self.section(name, |told| {
            let mut command = command()?;
            let shown = step::show(&command);
            eprintln!("$ {shown}");
            let mut child = command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("{shown} cannot be started"))?;
            let output = child.stdout.take().context("the output is piped")?;
            for line in BufReader::new(output).split(b'\n') {
                let line = line?;
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&line)?;
                stdout.write_all(b"\n")?;
                told.line(&String::from_utf8_lossy(&line));
            }
            let status = child.wait()?;
            anyhow::ensure!(status.success(), "`{shown}` ended with {status}");
            Ok(())
        });
    }

    /// A section that cannot run here, and why.
    pub(super) fn skip(&mut self, name: &str, why: &str) {
        if self.wanted(name) {
            eprintln!("\n######## {name}\nskipped: {why}");
            let outcome = Outcome::Skipped(why.to_owned());
            self.sections.push(Section {
                name: name.to_owned(),
                outcome,
                took: Duration::ZERO,
                counts: Counts::default(),
                last_lines: Vec::new(),
            });
        }
    }

    /// Prints the summary.
    pub(super) fn finish(self) -> ExitCode {
        for section in &self.sections {
            if matches!(section.outcome, Outcome::Failed(_)) && !section.last_lines.is_empty() {
                println!("\n######## {} failed; its last lines were", section.name);
                for line in &section.last_lines {
                    println!("{line}");
                }
            }
        }
        println!("\n######## summary");
        let mut total = Counts::default();
        let mut skipped = 0;
        for section in &self.sections {
            total.passed += section.counts.passed;
            total.failed += section.counts.failed;
            let told = match &section.outcome {
                Outcome::Passed => "ok".to_owned(),
                Outcome::Failed(why) => format!("FAILED: {}", why.lines().next().unwrap_or_default()),
                Outcome::Skipped(why) => {
                    skipped += 1;
                    format!("skipped: {why}")
                }
            };
            println!(
                "{:>7.1} s  {:<26} {told}",
                section.took.as_secs_f64(),
                section.name
            );
        }
        let took: Duration = self.sections.iter().map(|section| section.took).sum();
        println!(
            "{:>7.1} s  altogether; {skipped} sections skipped",
            took.as_secs_f64()
        );
        println!("{} passed, {} failed", total.passed, total.failed);
        if total.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// What a section's command printed, as far as it is kept.
#[derive(Debug, Default)]
struct Told {
    counts: Counts,
    /// Failed tests of `cargo test` by name: what follows them can be longer than what is kept.
    failed_tests: Vec<String>,
    last_lines: VecDeque<String>,
}

impl Told {
    fn line(&mut self, line: &str) {
        self.counts.add(line);
        if line.starts_with("test ") && line.ends_with("FAILED") {
            self.failed_tests.push(line.to_owned());
        }
        if self.last_lines.len() == LAST_LINES {
            self.last_lines.pop_front();
        }
        self.last_lines.push_back(line.to_owned());
    }
}

impl Counts {
    /// Adds the numbers of a closing line of `cargo test`, vitest or Playwright.
    fn add(&mut self, line: &str) {
        let plain = without_escapes(line);
        let words: Vec<&str> = plain
            .split(|c: char| c.is_whitespace() || ";|()".contains(c))
            .filter(|word| !word.is_empty())
            .collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        match words.as_slice() {
            // test result: ok. 3 passed; 0 failed; …
            ["test", "result:", ..] => {
                self.passed += number(3).unwrap_or(0);
                self.failed += number(5).unwrap_or(0);
            }
            // Tests  1 failed | 11 passed (12)
            ["Tests", rest @ ..] => self.add_pairs(rest),
            //   5 passed (3.2s)
            [_, "passed" | "failed", rest @ ..] if rest.len() <= 1 => self.add_pairs(&words),
            _ => {}
        }
    }

    fn add_pairs(&mut self, words: &[&str]) {
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else {
                continue;
            };
            match pair[1] {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                _ => {}
            }
        }
    }
}

/// `line` without SGR sequences.
fn without_escapes(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::Counts;

    fn counted(line: &str) -> (u64, u64) {
        let mut counts = Counts::default();
        counts.add(line);
        (counts.passed, counts.failed)
    }

    #[test]
    fn the_closing_lines_of_every_runner_are_counted() {
        let cargo = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(counted(cargo), (3, 1));
        assert_eq!(
            counted(
                "\x1b[2m      Tests \x1b[22m \x1b[1m\x1b[31m1 failed\x1b[39m | \x1b[32m11 passed\x1b[39m (12)"
            ),
            (11, 1)
        );
        assert_eq!(counted("      Tests  7 passed (7)"), (7, 0));
        assert_eq!(counted("  5 passed (3.2s)"), (5, 0));
        assert_eq!(counted("  1 failed"), (0, 1));
    }

    #[test]
    fn ordinary_lines_count_nothing() {
        assert_eq!(counted("running 3 tests"), (0, 0));
        assert_eq!(counted("2 passed over the bridge and 3 failed to"), (0, 0));
        assert_eq!(counted("Test Files  2 passed (2)"), (0, 0));
    }
}
