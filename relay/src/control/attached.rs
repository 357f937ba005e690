//! The agents that take commands now, and the commands that wait for an answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Commands of one agent that are sent or about to be, answers outstanding. One more is refused: somebody
/// presses a button again and again, or the agent does not answer.
const MAX_PENDING: usize = 64;

/// Every agent that has an Attach call open, by id.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    by_agent: Mutex<HashMap<String, Arc<Attachment>>>,
}

/// One Attach call.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) agent_id: String,
    commands: mpsc::Sender<v1::Command>,
    pending: Mutex<HashMap<u64, oneshot::Sender<v1::CommandResult>>>,
    next_id: AtomicU64,
    /// Cancelled when a later call of the agent took over.
    pub(crate) replaced: CancellationToken,
}

/// Why a command got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The agent has no Attach call open.
    Away,
    /// The call ended after the command was sent: whether it was done is not known.
    Lost,
    /// Too many commands wait for this agent's answer.
    Busy,
}

impl Attached {
    /// Makes the agent one that takes commands; an earlier call of it is told that it was replaced. The
    /// commands come out of the receiver.
    pub(crate) fn attach(&self, agent_id: &str) -> (Arc<Attachment>, mpsc::Receiver<v1::Command>) {
        // As many as may be pending, so that sending never waits.
        let (commands, to_send) = mpsc::channel(MAX_PENDING);
        let attachment = Arc::new(Attachment {
            agent_id: agent_id.to_owned(),
            commands,
            pending: Mutex::default(),
            next_id: AtomicU64::new(1),
            replaced: CancellationToken::new(),
        });
        let earlier = self.lock().insert(agent_id.to_owned(), Arc::clone(&attachment));
        if let Some(earlier) = earlier {
            earlier.hang_up();
        }
        (attachment, to_send)
    }

    /// The call is over. True: it was the agent's newest, so the agent is away now.
    pub(crate) fn detach(&self, attachment: &Arc<Attachment>) -> bool {
        attachment.hang_up();
        let mut by_agent = self.lock();
        let is_newest = by_agent
            .get(&attachment.agent_id)
            .is_some_and(|newest| Arc::ptr_eq(newest, attachment));
        if is_newest {
            by_agent.remove(&attachment.agent_id);
        }
        is_newest
    }

    /// Sends a command and waits for the agent's answer. Dropped by the caller, the command stays with the
    /// agent; only the answer is not waited for any more.
    pub(crate) async fn ask(
        &self,
        agent_id: &str,
        command: v1::Command,
    ) -> Result<v1::CommandResult, NoAnswer> {
        let attachment = self.lock().get(agent_id).cloned().ok_or(NoAnswer::Away)?;
        attachment.ask(command).await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Attachment>>> {
        self.by_agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attachment {
    async fn ask(&self, mut command: v1::Command) -> Result<v1::CommandResult, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let command_id = self.next_id.fetch_add(1, Ordering::Relaxed);
        command.command_id = command_id;
        {
            let mut pending = self.pending();
            if self.replaced.is_cancelled() {
                return Err(NoAnswer::Away);
            }
            pending.retain(|_, reply| !reply.is_closed());
            if pending.len() >= MAX_PENDING {
                return Err(NoAnswer::Busy);
            }
            pending.insert(command_id, reply);
        }
        match self.commands.try_send(command) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(NoAnswer::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(NoAnswer::Away),
        }
        answer.await.map_err(|_| NoAnswer::Lost)
    }

    /// The agent answered. An answer that nobody waits for is dropped.
    pub(crate) fn answered(&self, result: v1::CommandResult) {
        let waiting = self.pending().remove(&result.command_id);
        if let Some(reply) = waiting {
            // The caller may have hung up.
            let _ = reply.send(result);
        }
    }

    /// Whoever waits for an answer learns that none will come.
    fn hang_up(&self) {
        let mut pending = self.pending();
        self.replaced.cancel();
        pending.clear();
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<v1::CommandResult>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> v1::Command {
        v1::Command {
            action: v1::CommandAction::Start.into(),
            source: "cargo".to_owned(),
            ..v1::Command::default()
        }
    }

    #[tokio::test]
    async fn an_agent_that_is_away_is_not_waited_for() {
        let attached = Attached::default();
        assert_eq!(attached.ask("a", start()).await, Err(NoAnswer::Away));
        let (attachment, _commands) = attached.attach("a");
        assert!(attached.detach(&attachment));
        assert_eq!(attached.ask("a", start()).await, Err(NoAnswer::Away));
    }

    #[tokio::test]
    async fn an_answer_reaches_the_one_who_asked() {
        let attached = Attached::default();
        let (attachment, mut commands) = attached.attach("a");
        let answer = async {
            let (one, two) = (commands.recv().await.unwrap(), commands.recv().await.unwrap());
            for command in [two, one] {
                attachment.answered(v1::CommandResult {
                    command_id: command.command_id,
                    refusal: command.source,
                    ..v1::CommandResult::default()
                });
            }
        };
        let other = v1::Command {
            source: "npm".to_owned(),
            ..start()
        };
        let (one, two, ()) = tokio::join!(attached.ask("a", start()), attached.ask("a", other), answer);
        assert_eq!(
            (one.unwrap().refusal, two.unwrap().refusal),
            ("cargo".into(), "npm".into())
        );
    }

    #[tokio::test]
    async fn a_call_that_ends_tells_those_who_wait() {
        let attached = Attached::default();
        let (attachment, mut commands) = attached.attach("a");
        let hang_up = async {
            commands.recv().await.unwrap();
            attached.detach(&attachment);
        };
        let (answer, ()) = tokio::join!(attached.ask("a", start()), hang_up);
        assert_eq!(answer, Err(NoAnswer::Lost));
    }

    #[tokio::test]
    async fn a_later_call_takes_over_and_the_earlier_one_cannot_detach_it() {
        let attached = Attached::default();
        let (earlier, _commands) = attached.attach("a");
        let (_later, mut commands) = attached.attach("a");
        assert!(earlier.replaced.is_cancelled());
        assert!(!attached.detach(&earlier));
        let ask = attached.ask("a", start());
        tokio::pin!(ask);
        tokio::select! {
            answer = &mut ask => panic!("nobody answered, yet there is {answer:?}"),
            command = commands.recv() => assert_eq!(command.unwrap().source, "cargo"),
        }
    }

    #[tokio::test]
    async fn more_commands_than_an_agent_answers_are_refused() {
        let attached = Attached::default();
        let (_attachment, _commands) = attached.attach("a");
        let mut waiting = Vec::new();
        for _ in 0..MAX_PENDING {
            let mut ask = Box::pin(attached.ask("a", start()));
            assert!(futures_util::poll!(&mut ask).is_pending());
            waiting.push(ask);
        }
        assert_eq!(attached.ask("a", start()).await, Err(NoAnswer::Busy));
    }
}
