//! `Watch`: the lists as they are, then what changes in them.
//!
//! Like `Tail` it queues nothing: it learns which streams changed and looks at them when it may send.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use millstream_proto::v1::{self, StreamState, watch_response::Message};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::status::ToStatus;
use crate::auth::Access;
use crate::clock::now_unix_us;
use crate::core::CoreParts;
use crate::selector::Selector;
use crate::streams::{Agents, Interest, Ready, StreamHandle, Watcher};
use crate::subscription::Sources;

/// A stream that only grows is reported this often at most.
const COALESCE: Duration = Duration::from_secs(1);

pub(super) fn watch(
    parts: &CoreParts,
    access: Arc<Access>,
    request: &v1::WatchRequest,
) -> Result<impl Stream<Item = Result<v1::WatchResponse, Status>> + Send + use<>, Status> {
    let selector = access
        .selector(&request.selector)
        .map_err(|error| error.to_status())?;
    let watch = Watch::new(parts.sources(), Arc::clone(&parts.agents), selector, access);
    Ok(futures_util::stream::unfold(watch, |mut watch| async move {
        let message = watch.next().await?;
        let response = message.map(|message| v1::WatchResponse {
            message: Some(message),
        });
        Some((response, watch))
    }))
}

struct Watched {
    stream: Arc<StreamHandle>,
    watcher: Arc<Watcher>,
    sent_state: Option<StreamState>,
}

struct Watch {
    sources: Sources,
    agents: VisibleAgents,
    agent_changes: tokio::sync::watch::Receiver<u64>,
    /// Version of the agents up to which everything was sent.
    seen_agents: u64,
    ready: Arc<Ready>,
    interest: Arc<Interest>,
    streams: Vec<Watched>,
    /// Slots that changed only in their head, to be sent when the interval is over.
    grown: BTreeMap<usize, ()>,
    send_grown_at: Instant,
    next_heartbeat: Instant,
    to_send: VecDeque<Message>,
    is_snapshot_done: bool,
    is_done: bool,
}

impl Watch {
    fn new(sources: Sources, agents: Arc<Agents>, selector: Selector, access: Arc<Access>) -> Self {
        sources.metrics.watches.add(1);
        let ready = Arc::new(Ready::default());
        let (streams, interest, _) = sources.registry.subscribe(selector, Arc::clone(&ready));
        let agent_changes = agents.changes();
        let seen_agents = *agent_changes.borrow();
        let agents = VisibleAgents {
            agents,
            hidden: (!access.sees_everything())
                .then(|| sources.registry.agents_with(|labels| access.sees(labels)))
                .map(|by_stream| Hidden { access, by_stream }),
        };
        let to_send = agents.changed_after(None);
        let now = Instant::now();
        let mut watch = Self {
            next_heartbeat: now + sources.heartbeat,
            sources,
            agents,
            agent_changes,
            seen_agents,
            ready,
            interest,
            streams: Vec::new(),
            grown: BTreeMap::new(),
            send_grown_at: now + COALESCE,
            to_send,
            is_snapshot_done: false,
            is_done: false,
        };
        for stream in streams {
            watch.add(stream);
        }
        watch
    }

    fn add(&mut self, stream: Arc<StreamHandle>) {
        self.to_send.extend(self.agents.shown_by(&stream));
        let watcher = Watcher::new(Arc::clone(&self.ready), self.streams.len());
        stream.watch(&watcher);
        watcher.mark();
        self.streams.push(Watched {
            stream,
            watcher,
            sent_state: None,
        });
    }

    async fn next(&mut self) -> Option<Result<Message, Status>> {
        loop {
            if let Some(message) = self.to_send.pop_front() {
                return Some(Ok(message));
            }
            if self.is_done {
                return None;
            }
            if self.sources.stop.is_cancelled() {
                self.is_done = true;
                return Some(Err(Status::unavailable("the relay is stopping; reconnect")));
            }
            let (appeared, _) = self.sources.registry.take_appeared(&self.interest);
            for stream in appeared {
                self.add(stream);
            }
            if let Some(slot) = self.ready.pop() {
                self.look_at(slot);
                continue;
            }
            if !self.is_snapshot_done {
                self.is_snapshot_done = true;
                return Some(Ok(Message::SnapshotDone(v1::WatchSnapshotDone {})));
            }
            let now = Instant::now();
            if now >= self.send_grown_at && !self.grown.is_empty() {
                self.send_grown_at = now + COALESCE;
                for slot in std::mem::take(&mut self.grown).into_keys() {
                    self.to_send
                        .push_back(Message::Stream(self.streams[slot].stream.to_proto()));
                }
                continue;
            }
            if now >= self.next_heartbeat {
                self.next_heartbeat = now + self.sources.heartbeat;
                return Some(Ok(Message::Heartbeat(v1::Heartbeat {
                    server_unix_us: now_unix_us(),
                    ..v1::Heartbeat::default()
                })));
            }
            let wake_at = if self.grown.is_empty() {
                self.next_heartbeat
            } else {
                self.next_heartbeat.min(self.send_grown_at)
            };
            let seen = self.seen_agents;
            tokio::select! {
                () = self.ready.changed() => {}
                () = sleep_until(wake_at) => {}
                () = self.sources.stop.cancelled() => {}
                version = newer(&mut self.agent_changes, seen) => {
                    self.seen_agents = version;
                    self.to_send.extend(self.agents.changed_after(Some(seen)));
                }
            }
        }
    }

    /// A new stream or a new state goes out at once, a new head when its interval is over.
    fn look_at(&mut self, slot: usize) {
        let watched = &mut self.streams[slot];
        watched.watcher.unmark();
        let stream = watched.stream.to_proto();
        if watched.sent_state == Some(stream.state()) {
            self.grown.insert(slot, ());
        } else {
            watched.sent_state = Some(stream.state());
            self.grown.remove(&slot);
            self.to_send.push_back(Message::Stream(stream));
        }
    }
}

/// The agents that exist for the caller.
struct VisibleAgents {
    agents: Arc<Agents>,
    /// `None`: all of them.
    hidden: Option<Hidden>,
}

/// What decides when the caller has a scope.
struct Hidden {
    access: Arc<Access>,
    /// Agents of which the caller may see a stream.
    by_stream: BTreeSet<String>,
}

impl VisibleAgents {
    fn changed_after(&self, version: Option<u64>) -> VecDeque<Message> {
        let changed = self.agents.changed_after(version).into_iter();
        let visible = |mut agent: v1::Agent| {
            if let Some(hidden) = &self.hidden {
                if !hidden.access.sees_agent(&agent) && !hidden.by_stream.contains(&agent.agent_id) {
                    return None;
                }
                hidden.access.hide_sources(&mut agent);
            }
            Some(Message::Agent(agent))
        };
        changed.filter_map(visible).collect()
    }

    /// The agent that a stream makes visible for the first time.
    fn shown_by(&mut self, stream: &StreamHandle) -> Option<Message> {
        let hidden = self.hidden.as_mut()?;
        let agent_id = stream.labels.get("agent")?;
        if !hidden.by_stream.insert(agent_id.clone()) {
            return None;
        }
        let mut agent = self.agents.shown(agent_id)?;
        hidden.access.hide_sources(&mut agent);
        (!hidden.access.sees_agent(&agent)).then_some(Message::Agent(agent))
    }
}

/// Waits for a version above `seen`.
async fn newer(changes: &mut tokio::sync::watch::Receiver<u64>, seen: u64) -> u64 {
    let newer = changes
        .wait_for(|version| *version > seen)
        .await
        .map(|version| *version);
    match newer {
        Ok(version) => version,
        Err(_closed) => std::future::pending().await,
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.sources.metrics.watches.subtract(1);
    }
}
