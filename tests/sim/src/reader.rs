//! A subscriber on the real client, and what it has to see: every line from its start, once, in order, as written.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_client::{Client, Error, Event, Start, StreamLines, TailOptions, v1};
use tokio::time::sleep;

use crate::log::{Kind, Logs};
use crate::process::Machine;

/// What a subscriber asks for.
#[derive(Clone, Debug)]
pub(crate) struct ReaderSpec {
    pub(crate) host: String,
    pub(crate) selector: &'static str,
    pub(crate) start: Start,
}

/// What a subscriber's faults are at the moment.
#[derive(Debug, Default)]
pub(crate) struct Whims {
    /// It takes its time with each event.
    pub(crate) is_slow: AtomicBool,
    /// Its process ends after so many events and another goes on from its place; 0: not.
    pub(crate) crash_in: AtomicU64,
}

/// A subscriber; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) spec: ReaderSpec,
    pub(crate) whims: Arc<Whims>,
    machine: Machine,
    logs: Logs,
    view: Arc<Mutex<View>>,
}

/// What was seen over all its processes.
#[derive(Debug, Default)]
struct View {
    has_begun: bool,
    /// Where each stream that there was at the begin may begin, by source.
    starts: BTreeMap<String, Allowed>,
    /// By source.
    seen: BTreeMap<String, Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowed {
    lowest: u64,
    highest: u64,
    /// From the first line, too.
    or_first: bool,
}

#[derive(Debug, Default)]
struct Seen {
    next: Option<u64>,
    is_ended: bool,
}

impl Reader {
    pub(crate) fn new(spec: ReaderSpec, machine: Machine, logs: Logs) -> Self {
        Self {
            spec,
            whims: Arc::default(),
            machine,
            logs,
            view: Arc::default(),
        }
    }

    /// Reads for ever.
    pub(crate) async fn run(self) {
        let mut start = self.spec.start.clone();
        loop {
            match self.one_process(start.clone()).await {
                Ok(resume) => {
                    self.event(format_args!("begins anew at {:?}", resume.positions));
                    start = Start::Resume(resume);
                }
                Err(error) => {
                    self.breach(format_args!("cannot go on: {error}"));
                    return;
                }
            }
            sleep(self.machine.dice.wait(1..2000)).await;
        }
    }

    /// Until it crashes; returns its place.
    async fn one_process(&self, start: Start) -> Result<millstream_client::ResumePoint, Error> {
        let is_first = !self.view().has_begun;
        let options = TailOptions {
            selector: self.spec.selector.to_owned(),
            start,
            follow: true,
            ..TailOptions::default()
        };
        let mut lowest;
        let mut subscription = loop {
            lowest = self.machine.disk.heads();
            match self.connect(options.clone()).await {
                Ok(subscription) => break subscription,
                Err(Error::Unreachable { .. } | Error::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
            sleep(self.machine.dice.wait(100..2000)).await;
        };
        let (mut events, mut has_caught_up, mut repeated) = (0_u64, false, 0);
        let mut ended = std::collections::BTreeSet::new();
        loop {
            let event = subscription.next().await?;
            let event = event.expect("a subscription that follows does not end");
            if is_first && events == 0 {
                self.begin(&lowest);
            }
            events += 1;
            match event {
                Event::StreamAnnounced(stream) => {
                    self.event(format_args!("{} announced", source_of(&stream)));
                }
                Event::Lines(lines) => self.accept(&lines),
                Event::Gap { stream, gap } => {
                    self.breach(format_args!("{}: a gap: {gap:?}", source_of(&stream)));
                }
                Event::CaughtUp => {
                    self.event(format_args!("caught up"));
                    if std::mem::replace(&mut has_caught_up, true) {
                        self.breach(format_args!("caught up twice"));
                    }
                }
                Event::StreamEnded {
                    stream,
                    next_sequence,
                    ..
                } => {
                    let source = source_of(&stream);
                    self.accept_end(&source, next_sequence);
                    if !ended.insert(source) {
                        self.breach(format_args!("the end of {} told twice", source_of(&stream)));
                    }
                }
                Event::Reconnecting { reason, .. } => self.event(format_args!("reconnecting: {reason}")),
                Event::Resumed { .. } => self.event(format_args!("resumed")),
                _ => {}
            }
            if subscription.repeated_lines() > repeated {
                repeated = subscription.repeated_lines();
                self.breach(format_args!("{repeated} lines were sent again"));
            }
            if self.whims.is_slow.load(Ordering::Relaxed) {
                sleep(self.machine.dice.wait(1..1000)).await;
            }
            let crash_in = self.whims.crash_in.load(Ordering::Relaxed);
            self.whims
                .crash_in
                .store(crash_in.saturating_sub(1), Ordering::Relaxed);
            if crash_in == 1 {
                return Ok(subscription.resume_point());
            }
        }
    }

    async fn connect(&self, options: TailOptions) -> Result<millstream_client::Subscription, Error> {
        let (machine, host) = (self.machine.clone(), self.spec.host.clone());
        let dial = move |endpoint| machine.dial(&host, endpoint);
        Client::connect_through("http://relay:7171", dial)
            .await?
            .tail(options)
            .await
    }

    /// The relay took the request after `lowest` were the heads, and before now.
    fn begin(&self, lowest: &BTreeMap<String, u64>) {
        let mut view = self.view();
        view.has_begun = true;
        for (source, head) in self.machine.disk.heads() {
            let earlier = lowest.get(&source).copied();
            let back = match self.spec.start {
                Start::LastLines(count) => count,
                Start::Beginning => u64::MAX,
                _ => 0,
            };
            let mut allowed = Allowed {
                // A power cut between may have taken some back.
                lowest: earlier.unwrap_or(0).min(head).saturating_sub(back),
                highest: head.saturating_sub(back),
                or_first: earlier.is_none(),
            };
            if let (Start::SinceUnixUs(time), Some(log)) = (&self.spec.start, self.logs.get(&source)) {
                let first = log.first_since(*time);
                // With no line of that time yet, it begins at what is stored. One that is not looked up before the
                // first heartbeat begins at its first line.
                (allowed.highest, allowed.or_first) = (first, true);
                allowed.lowest = allowed.lowest.min(first);
            }
            view.starts.insert(source, allowed);
        }
    }

    fn accept(&self, lines: &StreamLines) {
        let source = source_of(lines.stream());
        let Some(log) = self.logs.get(&source) else {
            self.breach(format_args!("lines of {source}, which there is not"));
            return;
        };
        let mut view = self.view();
        let start = view.starts.get(&source).copied();
        let seen = view.seen.entry(source.clone()).or_default();
        for line in lines.lines() {
            let is_next = match (seen.next, start) {
                (Some(next), _) => line.sequence == next,
                (None, None) => line.sequence == 0,
                (None, Some(allowed)) => {
                    (allowed.lowest..=allowed.highest).contains(&line.sequence)
                        || (allowed.or_first && line.sequence == 0)
                }
            };
            if !is_next {
                self.breach(format_args!(
                    "{source}: line {} came after {:?}, start {start:?}",
                    line.sequence, seen.next
                ));
            }
            if !log.is_line(line.sequence, line.text) || line.partial {
                self.breach(format_args!("{source}: line {} is another one", line.sequence));
            }
            seen.next = Some(line.sequence + 1);
        }
        let (block, next) = (lines.block(), seen.next);
        self.machine
            .trace
            .count(b'r', [block.first_sequence(), block.line_count().into(), 0]);
        if seen.is_ended {
            self.breach(format_args!("{source}: lines up to {next:?} after its end"));
        }
    }

    fn accept_end(&self, source: &str, next_sequence: u64) {
        self.event(format_args!("{source} ended at {next_sequence}"));
        let mut view = self.view();
        let seen = view.seen.entry(source.to_owned()).or_default();
        seen.is_ended = true;
        let length = self.logs.get(source).map_or(0, |log| log.len());
        if next_sequence != length || seen.next.is_some_and(|next| next != length) {
            self.breach(format_args!(
                "{source}: ended at {next_sequence} with {:?} seen and {length} written",
                seen.next
            ));
        }
    }

    /// What it has not seen yet; nothing when it is through.
    pub(crate) fn missing(&self) -> Vec<String> {
        let view = self.view();
        if !view.has_begun {
            return vec![format!("{}: everything", self.spec.host)];
        }
        let mut missing = Vec::new();
        for log in self
            .logs
            .all()
            .iter()
            .filter(|log| self.selects(log.kind, &log.source))
        {
            let (length, seen) = (log.len(), view.seen.get(&log.source));
            let next = seen.and_then(|seen| seen.next);
            // Nothing came after its start.
            let may_skip = next.is_none()
                && view
                    .starts
                    .get(&log.source)
                    .map_or(length == 0, |allowed| allowed.highest >= length);
            let has_end = seen.is_some_and(|seen| seen.is_ended) == log.ends;
            if !(may_skip || (next == Some(length) && has_end)) {
                missing.push(format!(
                    "{}: {} seen to {next:?} of {length}, its end: {has_end}",
                    self.spec.host, log.source
                ));
            }
        }
        missing
    }

    fn selects(&self, kind: Kind, source: &str) -> bool {
        match self.spec.selector {
            "" => true,
            "kind=File" => kind == Kind::File,
            "source!=s0" => source != "s0",
            other => unreachable!("no subscriber asks for {other}"),
        }
    }

    fn event(&self, what: std::fmt::Arguments<'_>) {
        self.machine
            .trace
            .event(format_args!("{}: {what}", self.spec.host));
    }

    fn breach(&self, what: std::fmt::Arguments<'_>) {
        self.machine
            .trace
            .breach(format_args!("{}: {what}", self.spec.host));
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Selectors that subscribers choose from.
pub(crate) const SELECTORS: [&str; 4] = ["", "", "kind=File", "source!=s0"];

fn source_of(stream: &v1::Stream) -> String {
    stream.labels.get("source").cloned().unwrap_or_default()
}
