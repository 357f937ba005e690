//! The writer itself: one future that never yields but to wait, polled by a thread of its own, or by whoever
//! simulates a relay.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use millstream_proto::v1;
use millstream_store::{LogStore, StoreError, StreamRecord, WriteOp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Fsync;
use super::command::{Append, Command, End, OpenStream, Opened};
use super::group::{AfterSync, Group, Head};
use crate::clock::now_unix_us;
use crate::ingest::Session;
use crate::metrics::Metrics;
use crate::streams::{Agents, Registry};

/// A group grows to about this much text, so that nobody waits long for a commit.
const GROUP_TEXT_BYTES: u64 = 8 << 20;

/// And to this many commands.
const GROUP_COMMANDS: usize = 8192;

/// First and longest wait after the store failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What the thread works with.
#[derive(Debug)]
pub(crate) struct WriterParts {
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) agents: Arc<Agents>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fsync: Fsync,
    pub(crate) max_streams: usize,
    /// Why the store fails at the moment; `None` when it works.
    pub(crate) trouble: Arc<watch::Sender<Option<String>>>,
    /// Cancelled when the relay begins to stop: then a store that fails is not waited for.
    pub(crate) stop: CancellationToken,
}

/// The relay is stopping while the store fails. Nobody was acknowledged, so agents keep what is not stored.
struct GaveUp;

/// Runs until it is told to stop or every handle is gone. It calls the store as it goes, which blocks.
pub(crate) async fn run(parts: WriterParts, mut queue: mpsc::Receiver<Command>) {
    let mut thread = Thread {
        parts,
        heads: HashMap::new(),
        sessions: BTreeMap::new(),
        unsynced_since: None,
    };
    // Its end drops every command that still waits, and with it the answer that somebody waits for.
    let _ = work(&mut thread, &mut queue).await;
}

async fn work(thread: &mut Thread, queue: &mut mpsc::Receiver<Command>) -> Result<(), GaveUp> {
    while let Some(first) = thread.next_command(queue).await? {
        let mut group = Group::default();
        let mut stop = None;
        let mut waiting = Some(first);
        let mut commands = 0;
        while let Some(command) = waiting {
            if let Command::Stop { reply } = command {
                stop = Some(reply);
                break;
            }
            thread.stage(&mut group, command);
            commands += 1;
            if commands >= GROUP_COMMANDS || group.text_bytes >= GROUP_TEXT_BYTES {
                break;
            }
            waiting = queue.try_recv().ok();
        }
        thread.finish(group).await?;
        if let Some(reply) = stop {
            thread.sync_until_done().await?;
            queue.close();
            // The asker may have given up waiting.
            let _ = reply.send(());
            return Ok(());
        }
    }
    thread.sync_until_done().await
}

struct Thread {
    parts: WriterParts,
    /// Heads of the streams that were written since start; others are read from the registry.
    heads: HashMap<u64, Head>,
    /// In order, so that all of them are told in the same order in every run of a simulation.
    sessions: BTreeMap<String, (u64, Weak<Session>)>,
    /// For [`Fsync::Interval`]: since when a commit waits for its sync.
    unsynced_since: Option<Instant>,
}

impl Thread {
    /// Waits for a command, and in between for the time to sync.
    async fn next_command(&mut self, queue: &mut mpsc::Receiver<Command>) -> Result<Option<Command>, GaveUp> {
        loop {
            let (Fsync::Interval(interval), Some(since)) = (self.parts.fsync, self.unsynced_since) else {
                return Ok(queue.recv().await);
            };
            match tokio::time::timeout_at(since + interval, queue.recv()).await {
                Ok(command) => return Ok(command),
                Err(_elapsed) => self.sync_until_done().await?,
            }
        }
    }

    fn stage(&mut self, group: &mut Group, command: Command) {
        match command {
            Command::OpenSession {
                session,
                agent,
                reply,
            } => self.open_session(group, &session, agent, reply),
            Command::CloseSession { session } => self.close_session(group, &session),
            Command::OpenStream { open, reply } => self.open_stream(group, open, reply),
            Command::Append { mut append, permit } => {
                group.permits.push(permit);
                group.permits.extend(append.share.take());
                self.append(group, append);
            }
            Command::End(end) => self.end(group, end),
            Command::Barrier { reply } => group.after_sync.push(AfterSync::Barrier { reply }),
            Command::Stop { .. } => unreachable!("handled by the loop"),
        }
    }

    fn open_session(
        &mut self,
        group: &mut Group,
        session: &Arc<Session>,
        agent: v1::Agent,
        reply: oneshot::Sender<u64>,
    ) {
        let (epoch, earlier) = self
            .sessions
            .get(&session.agent_id)
            .map_or((0, None), |(epoch, session)| (*epoch, session.upgrade()));
        if let Some(earlier) = earlier {
            earlier.fence();
        }
        let epoch = epoch + 1;
        session.set_epoch(epoch);
        self.sessions
            .insert(session.agent_id.clone(), (epoch, Arc::downgrade(session)));
        self.parts.agents.put(agent.clone());
        group.operations.push(WriteOp::PutAgent(agent));
        // A session that is gone already will be closed by its own task.
        let _ = reply.send(epoch);
    }

    fn close_session(&mut self, group: &mut Group, session: &Arc<Session>) {
        let is_current = self
            .sessions
            .get(&session.agent_id)
            .is_some_and(|(epoch, _)| *epoch == session.epoch());
        if !is_current {
            return;
        }
        if let Some(mut agent) = self.parts.agents.get(&session.agent_id) {
            agent.state = v1::AgentState::Away.into();
            agent.disconnected_unix_us = now_unix_us();
            self.parts.agents.put(agent.clone());
            group.operations.push(WriteOp::PutAgent(agent));
        }
    }

    fn open_stream(
        &mut self,
        group: &mut Group,
        open: OpenStream,
        reply: oneshot::Sender<Result<Opened, String>>,
    ) {
        if open.session.is_fenced() {
            return;
        }
        let Some(stream) = self.parts.registry.find(&open.key) else {
            return self.make_stream(group, open, reply);
        };
        let head = self.head(&stream);
        let checkpoint = group
            .publications
            .get(&stream.stream_id)
            .and_then(|(_, blocks)| blocks.iter().rev().find(|block| !block.checkpoint.is_empty()))
            .map_or_else(|| stream.record().checkpoint, |block| block.checkpoint.clone());
        let opened = Opened {
            next_sequence: head.next_sequence,
            is_ended: head.is_ended,
            checkpoint,
            stream,
        };
        group.after_sync.push(AfterSync::Opened { reply, opened });
    }

    fn make_stream(
        &self,
        group: &mut Group,
        open: OpenStream,
        reply: oneshot::Sender<Result<Opened, String>>,
    ) {
        let registry = &self.parts.registry;
        let is_made = group.made.contains(&open.key);
        if !is_made && registry.len() + group.made.len() >= self.parts.max_streams {
            // The asker learns why; whether it still listens is its affair.
            let _ = reply.send(Err(format!(
                "the relay holds {} streams, its limit; raise limits.max_streams or remove some",
                self.parts.max_streams
            )));
            return;
        }
        let record = StreamRecord {
            stream_id: registry.last_id() + group.made.len() as u64 + 1,
            agent_id: open.key.agent_id.clone(),
            source: open.key.source.clone(),
            instance: open.key.instance.clone(),
            labels: open.labels,
            created_unix_us: now_unix_us(),
            first_sequence: 0,
            next_sequence: 0,
            text_bytes: 0,
            last_line_unix_us: 0,
            checkpoint: bytes::Bytes::new(),
            run: open.run,
            end: None,
        };
        if !is_made {
            group.made.insert(open.key.clone());
            group.operations.push(WriteOp::PutStream(record.clone()));
        }
        group.after_sync.push(AfterSync::Made {
            reply,
            key: open.key,
            record: Box::new(record),
        });
    }

    fn append(&mut self, group: &mut Group, append: Append) {
        if append.session.is_fenced() {
            return;
        }
        let session = Arc::clone(&append.session);
        let stream_id = append.stream.stream_id;
        let mut head = self.head(&append.stream);
        let staged = group.stage_append(&mut head, append);
        self.heads.insert(stream_id, head);
        self.report(&session, staged);
    }

    fn end(&mut self, group: &mut Group, end: End) {
        if end.session.is_fenced() {
            return;
        }
        let session = Arc::clone(&end.session);
        let stream_id = end.stream.stream_id;
        let mut head = self.head(&end.stream);
        let staged = group.stage_end(&mut head, end);
        self.heads.insert(stream_id, head);
        self.report(&session, staged);
    }

    fn report(&self, session: &Session, staged: Result<(), Box<v1::Refusal>>) {
        if let Err(refusal) = staged {
            self.parts.metrics.refusals_total.add(1);
            session.refuse(*refusal);
        }
    }

    fn head(&self, stream: &crate::streams::StreamHandle) -> Head {
        self.heads.get(&stream.stream_id).copied().unwrap_or_else(|| {
            let bounds = stream.bounds();
            Head {
                next_sequence: bounds.next_sequence,
                is_ended: bounds.is_ended,
            }
        })
    }

    /// Commit, show, sync, acknowledge.
    async fn finish(&mut self, group: Group) -> Result<(), GaveUp> {
        if group.is_empty() {
            return Ok(());
        }
        if !group.operations.is_empty() {
            self.commit_until_done(&group.operations).await?;
            let metrics = &self.parts.metrics;
            metrics.lines_total.add(group.lines);
            metrics.text_bytes_total.add(group.text_bytes);
            metrics.blocks_total.add(
                group
                    .publications
                    .values()
                    .map(|(_, blocks)| blocks.len() as u64)
                    .sum(),
            );
        }
        for (stream, blocks) in group.publications.into_values() {
            stream.publish(blocks);
        }
        for (stream, end) in group.ends {
            stream.set_end(end);
        }
        drop(group.permits);
        // The id of a stream that is not durable could be given to another one after a power cut, and readers who
        // had seen it would take the other's lines for seen. So nobody sees it before, whatever the policy.
        if self.parts.fsync == Fsync::Always || !group.made.is_empty() {
            self.sync_until_done().await?;
        }
        for after in group.after_sync {
            match after {
                AfterSync::Ack {
                    session,
                    handle,
                    next_sequence,
                    ended,
                } => {
                    session.ack(handle, next_sequence, ended);
                }
                // The session may be gone; then nobody needs the answer.
                AfterSync::Opened { reply, opened } => drop(reply.send(Ok(opened))),
                AfterSync::Made { reply, key, record } => {
                    let stream = self.parts.registry.find(&key).unwrap_or_else(|| {
                        self.parts.metrics.streams.add(1);
                        self.parts.registry.add(*record)
                    });
                    let opened = Opened {
                        stream,
                        next_sequence: 0,
                        checkpoint: bytes::Bytes::new(),
                        is_ended: false,
                    };
                    drop(reply.send(Ok(opened)));
                }
                AfterSync::Barrier { reply } => drop(reply.send(())),
            }
        }
        Ok(())
    }

    /// Tries until the store takes it. Nobody is acknowledged meanwhile, so nothing can be lost: agents
    /// keep what was not acknowledged, and the queue in front of the writer is bounded.
    async fn commit_until_done(&mut self, operations: &[WriteOp]) -> Result<(), GaveUp> {
        // Cloning an operation counts references; it copies no text.
        self.retry("write to the store", |store| store.commit(operations.to_vec()))
            .await?;
        self.parts.metrics.commits_total.add(1);
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    async fn sync_until_done(&mut self) -> Result<(), GaveUp> {
        if self.unsynced_since.take().is_none() {
            return Ok(());
        }
        let begin = Instant::now();
        self.retry("make the store durable", LogStore::sync).await?;
        let spent = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.parts.metrics.syncs_total.add(1);
        self.parts.metrics.sync_time_us_total.add(spent);
        Ok(())
    }

    async fn retry(
        &mut self,
        what: &str,
        mut attempt: impl FnMut(&dyn LogStore) -> Result<(), StoreError>,
    ) -> Result<(), GaveUp> {
        let mut wait = RETRY.0;
        let mut told = String::new();
        while let Err(error) = attempt(&*self.parts.store) {
            self.parts.metrics.store_errors_total.add(1);
            let trouble = match error {
                // It says all that an operator needs, and its first words are what dashboards look for.
                StoreError::Full { .. } => error.to_string(),
                _ => format!("cannot {what}: {error}"),
            };
            // A change of the kind of trouble is news, its numbers are not.
            let kind = trouble.split(':').next().unwrap_or_default();
            if told != kind {
                tracing::error!("{trouble}; trying again until it works, acknowledging nothing");
                kind.clone_into(&mut told);
            }
            for (_, session) in self.sessions.values() {
                if let Some(session) = session.upgrade() {
                    session.throttle(v1::Throttle {
                        wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
                        reason: trouble.clone(),
                    });
                }
            }
            self.parts.trouble.send_replace(Some(trouble));
            if self.parts.stop.is_cancelled() {
                tracing::warn!("stopping while the store fails; agents keep what was not acknowledged");
                return Err(GaveUp);
            }
            // The writer has nothing else to do, and its condition is the store's own success.
            tokio::select! {
                biased;
                () = self.parts.stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RETRY.1);
        }
        if !told.is_empty() {
            tracing::info!("the store works again");
            self.parts.trouble.send_replace(None);
        }
        Ok(())
    }
}
