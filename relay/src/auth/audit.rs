//! Who did what, and who was refused: one JSON object a line, in a stream of the relay's own.
//!
//! Nothing waits for the audit: an event goes into a bounded queue, and what does not fit is counted and said in
//! it. Refusals are cheap to cause, so only so many a second are written one by one; the rest is a number. What a
//! caller sent is in it cut short and as JSON, which has no control characters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Access;
use crate::core::CoreParts;
use crate::own_stream::OwnStream;

/// Name of the stream's source.
pub(crate) const AUDIT_SOURCE: &str = "audit";

/// Events that wait to be written. Full: the event is dropped and counted.
const QUEUE_EVENTS: usize = 1024;

/// Refusals that are written one by one in one second, and, counted apart so that they hide no refusal, headers that
/// were ignored.
const REFUSALS_PER_SECOND: u32 = 20;

/// Wait after the stream could not be opened.
const OPEN_RETRY: Duration = Duration::from_secs(5);

/// Longest text of a caller's that is kept, in characters.
const MAX_TEXT: usize = 300;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// The relay started and asks who callers are.
    Started {
        configuration: String,
    },
    Login {
        who: String,
        from: String,
    },
    Logout {
        who: String,
        from: String,
    },
    TokenCreated {
        token: String,
        role: &'static str,
        scope: String,
    },
    TokenRevoked {
        token: String,
    },
    TokenExpired {
        token: String,
    },
    /// A call that acts on a build host was admitted.
    Control {
        who: String,
        from: String,
        call: String,
    },
    /// What became of it.
    ControlOutcome {
        who: String,
        from: String,
        action: &'static str,
        /// `AGENT/SOURCE`, or `run RUN`.
        target: String,
        /// The new command's words, when there is one.
        #[serde(skip_serializing_if = "String::is_empty")]
        command: String,
        /// `done`, or why not.
        outcome: String,
    },
    /// A caller was not let in or may not do that.
    Refused {
        who: String,
        from: String,
        call: String,
        why: String,
    },
    /// Somebody who is no trusted proxy sent its header; it counted for nothing.
    HeaderIgnored {
        from: String,
        header: String,
        call: String,
    },
    /// A file of the configuration was read again.
    Reloaded {
        what: String,
    },
    /// Events that are not here one by one: too many at a time.
    More {
        refused: u64,
        headers_ignored: u64,
        dropped: u64,
    },
}

/// Where events go. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    queue: mpsc::Sender<Event>,
    dropped: Arc<AtomicU64>,
}

/// A call that acts on build hosts is given this, to say what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Trail {
    pub(super) audit: Audit,
    pub(super) from: String,
}

impl Trail {
    pub(crate) fn controlled(
        &self,
        access: &Access,
        action: &'static str,
        target: &str,
        command: &str,
        outcome: &str,
    ) {
        self.audit.tell(Event::ControlOutcome {
            who: access.who().to_owned(),
            from: self.from.clone(),
            action,
            target: shortened(target),
            command: shortened(command),
            outcome: shortened(outcome),
        });
    }
}

/// The other end; [`AuditQueue::write`] runs for as long as the relay does.
#[derive(Debug)]
pub(crate) struct AuditQueue {
    queue: mpsc::Receiver<Event>,
    dropped: Arc<AtomicU64>,
}

impl Audit {
    pub(crate) fn new() -> (Self, AuditQueue) {
        let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
        let dropped = Arc::<AtomicU64>::default();
        let audit = Self {
            queue: sender,
            dropped: Arc::clone(&dropped),
        };
        (
            audit,
            AuditQueue {
                queue: receiver,
                dropped,
            },
        )
    }

    pub(crate) fn tell(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where a caller is, as the connection says.
pub(crate) fn from(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
}

/// A caller's text, cut short.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// Lets only so many events a second through that are cheap to cause.
#[derive(Debug)]
struct Throttle {
    window_began: Instant,
    refused: Held,
    headers_ignored: Held,
}

#[derive(Debug, Default)]
struct Held {
    passed: u32,
    held: u64,
}

impl Held {
    fn passes(&mut self) -> bool {
        if self.passed < REFUSALS_PER_SECOND {
            self.passed += 1;
            return true;
        }
        self.held += 1;
        false
    }
}

impl Throttle {
    fn new(now: Instant) -> Self {
        Self {
            window_began: now,
            refused: Held::default(),
            headers_ignored: Held::default(),
        }
    }

    /// Whether the event is written by itself.
    fn passes(&mut self, event: &Event, now: Instant) -> bool {
        if now.duration_since(self.window_began) >= Duration::from_secs(1) {
            self.window_began = now;
            self.refused.passed = 0;
            self.headers_ignored.passed = 0;
        }
        match event {
            Event::Refused { .. } => self.refused.passes(),
            Event::HeaderIgnored { .. } => self.headers_ignored.passes(),
            _ => true,
        }
    }

    fn holds_any(&self) -> bool {
        self.refused.held + self.headers_ignored.held > 0
    }
}

impl AuditQueue {
    /// Writes what comes until `stop`, and what waits then.
    pub(crate) async fn write(mut self, parts: Arc<CoreParts>, stop: CancellationToken) {
        let mut stream = None;
        let mut throttle = Throttle::new(Instant::now());
        let mut batch = Vec::new();
        loop {
            let more_due = throttle.window_began + Duration::from_secs(1);
            tokio::select! {
                biased;
                count = self.queue.recv_many(&mut batch, 256) => if count == 0 { return },
                () = tokio::time::sleep_until(more_due), if throttle.holds_any() => {}
                () = stop.cancelled() => return,
            }
            let now = Instant::now();
            let mut events: Vec<Event> = batch
                .drain(..)
                .filter(|event| throttle.passes(event, now))
                .collect();
            let (refused, headers_ignored) = if now >= more_due {
                let take = |held: &mut Held| std::mem::take(&mut held.held);
                (take(&mut throttle.refused), take(&mut throttle.headers_ignored))
            } else {
                (0, 0)
            };
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if refused + headers_ignored + dropped > 0 {
                events.push(Event::More {
                    refused,
                    headers_ignored,
                    dropped,
                });
            }
            let lines: Vec<String> = events
                .iter()
                .map(|event| serde_json::to_string(event).expect("an event is plain text and numbers"))
                .collect();
            if lines.is_empty() {
                continue;
            }
            while stream.is_none() {
                match OwnStream::open(Arc::clone(&parts), AUDIT_SOURCE).await {
                    Ok(opened) => stream = Some(opened),
                    Err(error) => {
                        tracing::error!(%error, "the audit cannot be written; trying again");
                        tokio::select! {
                            () = tokio::time::sleep(OPEN_RETRY) => {}
                            () = stop.cancelled() => return,
                        }
                    }
                }
            }
            if let Some(stream) = &mut stream
                && stream.append(&lines).await.is_err()
            {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Event {
        Event::Refused {
            who: "somebody".to_owned(),
            from: "10.0.0.1:1".to_owned(),
            call: "/x".to_owned(),
            why: "no token".to_owned(),
        }
    }

    #[test]
    fn a_flood_of_refusals_becomes_a_number_and_hides_nothing_else() {
        let begin = Instant::now();
        let mut throttle = Throttle::new(begin);
        let ignored = Event::HeaderIgnored {
            from: String::new(),
            header: "x-forwarded-user".to_owned(),
            call: String::new(),
        };
        let passed = (0..1000).filter(|_| throttle.passes(&ignored, begin)).count();
        assert_eq!(passed, REFUSALS_PER_SECOND as usize);
        let passed = (0..1000).filter(|_| throttle.passes(&refused(), begin)).count();
        assert_eq!(passed, REFUSALS_PER_SECOND as usize);
        assert_eq!(throttle.refused.held, 1000 - u64::from(REFUSALS_PER_SECOND));
        let login = Event::Login {
            who: "x".to_owned(),
            from: "y".to_owned(),
        };
        assert!(throttle.passes(&login, begin));
        assert!(throttle.passes(&refused(), begin + Duration::from_secs(1)));
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let (audit, queue) = Audit::new();
        for _ in 0..QUEUE_EVENTS + 5 {
            audit.tell(refused());
        }
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_callers_text_cannot_make_a_second_line() {
        let event = Event::Refused {
            who: "a\nb\u{1b}[31m".to_owned(),
            from: from(None),
            call: shortened(&"/x".repeat(1000)),
            why: String::new(),
        };
        let line = serde_json::to_string(&event).unwrap();
        assert!(!line.chars().any(char::is_control), "{line}");
        assert!(line.starts_with("{\"event\":\"refused\""), "{line}");
        assert!(line.len() < 500);
    }
}
