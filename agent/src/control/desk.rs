//! Where requests from outside meet the sources: decides by the allow-list, keeps set commands, and passes on to
//! the source's own task what only that can do. What it tells is masked as the source's text is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use millstream_proto::v1::{self, CommandAction, RefusalKind};
use tokio::sync::{mpsc, oneshot, watch};

use super::allow::{Action, AllowList};
use super::commands::{Commands, SetCommand};
use crate::edge::MaskSettings;
use crate::outbox::now_unix_us;

/// Requests that may wait for one source's task, which takes them at once unless it is stuck.
const MAX_WAITING: usize = 16;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub kind: RefusalKind,
    /// What is wrong, and what would make it right.
    pub message: String,
}

impl Refused {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// What a source's task is asked for. `principal` is who asked.
#[derive(Debug)]
pub enum Request {
    Start {
        principal: String,
        reply: Reply<v1::Run>,
    },
    Stop {
        principal: String,
        /// Only this run; empty: whatever runs.
        run_id: String,
        reply: Reply<v1::StreamEnd>,
    },
    Restart {
        principal: String,
        run_id: String,
        reply: Reply<v1::Run>,
    },
    /// Something for the log of the run that goes on, if one does: who asked for what, and what became of it.
    Note(String),
}

/// Masks by source.
pub type Masks = BTreeMap<String, Arc<MaskSettings>>;

/// The desk. Clones share it.
#[derive(Debug, Clone)]
pub struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    allow: AllowList,
    commands: Mutex<Commands>,
    masks: Masks,
    sources: Mutex<BTreeMap<String, Entry>>,
    version: watch::Sender<u64>,
}

#[derive(Debug)]
struct Entry {
    configured: Vec<String>,
    requests: mpsc::Sender<Request>,
    run_id: String,
}

/// One source's side of the desk.
#[derive(Debug)]
pub struct SourceDesk {
    source: String,
    configured: Vec<String>,
    desk: Desk,
    requests: mpsc::Receiver<Request>,
}

impl Desk {
    #[must_use]
    pub fn new(allow: AllowList, commands: Commands, masks: Masks) -> Self {
        Self(Arc::new(Inner {
            allow,
            commands: Mutex::new(commands),
            masks,
            sources: Mutex::default(),
            version: watch::channel(0).0,
        }))
    }

    /// Opens the side of a source that runs commands.
    #[must_use]
    pub fn open(&self, source: &str, configured: &[String]) -> SourceDesk {
        let (requests, receiver) = mpsc::channel(MAX_WAITING);
        let entry = Entry {
            configured: configured.to_vec(),
            requests,
            run_id: String::new(),
        };
        self.sources().insert(source.to_owned(), entry);
        self.changed();
        SourceDesk {
            source: source.to_owned(),
            configured: configured.to_vec(),
            desk: self.clone(),
            requests: receiver,
        }
    }

    /// Does what the command says, or says why not. Returns when it is done.
    pub async fn handle(&self, command: v1::Command) -> v1::CommandResult {
        let command_id = command.command_id;
        let principal = command.principal.clone();
        let action = match command.action() {
            CommandAction::Start => Action::Start,
            CommandAction::Stop => Action::Stop,
            CommandAction::Restart => Action::Restart,
            CommandAction::SetCommand => Action::SetCommand,
            CommandAction::Unspecified => {
                let refused = Refused::new(
                    RefusalKind::Failed,
                    "this agent does not know the action; is the relay newer than the agent?",
                );
                return refusal(command_id, refused);
            }
        };
        let source = command.source.clone();
        let mut result = match self.act(action, command).await {
            Ok(result) => v1::CommandResult { command_id, ..result },
            Err(refused) => {
                let name = action.name();
                self.note(
                    &source,
                    format!(
                        "control: {principal} asked for {name}; refused: {}",
                        refused.message
                    ),
                );
                refusal(command_id, refused)
            }
        };
        let run = result.run.iter_mut().flat_map(|run| {
            let texts = run.argv.iter_mut().chain(run.env.values_mut());
            texts.chain([&mut run.cwd, &mut run.reason])
        });
        let end = result.end.iter_mut().map(|end| &mut end.message);
        let others = result.previous_argv.iter_mut().chain([&mut result.refusal]);
        self.mask(&source, run.chain(end).chain(others));
        result
    }

    async fn act(&self, action: Action, command: v1::Command) -> Result<v1::CommandResult, Refused> {
        let source = command.source.as_str();
        let (configured, requests) = {
            let sources = self.sources();
            let entry = sources.get(source).ok_or_else(|| {
                let message = format!("this agent has no source {source:?} that runs a command");
                Refused::new(RefusalKind::UnknownSource, message)
            })?;
            (entry.configured.clone(), entry.requests.clone())
        };
        let allowed = self.0.allow.of(source);
        if !allowed.permits(action) {
            let name = action.name();
            let message = format!(
                "the agent does not allow {name} on {source}; its configuration would have to list \"{name}\" in \
                 allow under [control.{source}]"
            );
            return Err(Refused::new(RefusalKind::Forbidden, message));
        }
        let v1::Command {
            principal,
            run_id,
            argv,
            expected_argv,
            ..
        } = command;
        let mut result = v1::CommandResult::default();
        match action {
            Action::Start => {
                let run = ask(&requests, |reply| Request::Start { principal, reply }).await?;
                result.run = Some(run);
            }
            Action::Stop => {
                let stop = |reply| Request::Stop {
                    principal,
                    run_id,
                    reply,
                };
                result.end = Some(ask(&requests, stop).await?);
            }
            Action::Restart => {
                let restart = |reply| Request::Restart {
                    principal,
                    run_id,
                    reply,
                };
                result.run = Some(ask(&requests, restart).await?);
            }
            Action::SetCommand => {
                if !argv.is_empty() {
                    allowed
                        .check_command(&argv)
                        .map_err(|message| Refused::new(RefusalKind::Forbidden, message))?;
                }
                let previous = self.set_command(source, &configured, &argv, &expected_argv, &principal)?;
                let now = if argv.is_empty() { &configured } else { &argv };
                self.note(
                    source,
                    format!(
                        "control: {principal} changed the command of the next start from {previous:?} to {now:?}"
                    ),
                );
                result.previous_argv = previous;
            }
        }
        Ok(result)
    }

    fn set_command(
        &self,
        source: &str,
        configured: &[String],
        argv: &[String],
        expected: &[String],
        principal: &str,
    ) -> Result<Vec<String>, Refused> {
        let mut commands = self.commands();
        let current = commands
            .of(source, configured)
            .map_or_else(|| configured.to_vec(), |set| set.argv.clone());
        let mut shown = current.clone();
        self.mask(source, shown.iter_mut());
        if !expected.is_empty() && expected != current && expected != shown {
            let message =
                format!("the command of {source} is {shown:?} by now, not {expected:?}; look again");
            return Err(Refused::new(RefusalKind::Conflict, message));
        }
        if let Some(word) = argv
            .iter()
            .find(|word| shown.contains(*word) && !current.contains(*word))
        {
            let message =
                format!("{word:?} stands for a word with a secret in it; write out what it is to be");
            return Err(Refused::new(RefusalKind::Conflict, message));
        }
        let is_configured = argv.is_empty() || argv == configured;
        let set = (!is_configured).then(|| SetCommand {
            argv: argv.to_vec(),
            instead_of: configured.to_vec(),
            principal: principal.to_owned(),
            set_unix_us: now_unix_us(),
        });
        commands.set(source, set).map_err(|error| {
            let message = format!("the agent cannot keep the command: {error}; nothing was changed");
            Refused::new(RefusalKind::Failed, message)
        })?;
        drop(commands);
        self.changed();
        Ok(current)
    }

    /// Adds what the desk knows to a source's status, and masks it.
    pub fn complete(&self, status: &mut v1::SourceStatus) {
        self.add_to(status);
        let source = status.source.clone();
        let words = status.argv.iter_mut().chain(&mut status.configured_argv);
        self.mask(&source, words.chain([&mut status.message]));
    }

    fn mask<'t>(&self, source: &str, texts: impl Iterator<Item = &'t mut String>) {
        if let Some(mask) = self.0.masks.get(source) {
            texts.for_each(|text| mask.mask(text));
        }
    }

    fn add_to(&self, status: &mut v1::SourceStatus) {
        let sources = self.sources();
        let Some(entry) = sources.get(&status.source) else {
            return;
        };
        let allowed = self.0.allow.of(&status.source);
        status.allowed_actions = allowed.names();
        allowed.pattern().clone_into(&mut status.command_pattern);
        status.run_id.clone_from(&entry.run_id);
        let commands = self.commands();
        match commands.of(&status.source, &entry.configured) {
            Some(set) => {
                status.argv.clone_from(&set.argv);
                status.configured_argv.clone_from(&entry.configured);
            }
            None => status.argv.clone_from(&entry.configured),
        }
    }

    /// Changes whenever what [`Desk::complete`] says does.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// Dropped when nothing runs, or when very many wait: the relay's audit has it all the same.
    fn note(&self, source: &str, text: String) {
        let requests = self.sources().get(source).map(|entry| entry.requests.clone());
        if let Some(requests) = requests {
            let _ = requests.try_send(Request::Note(text));
        }
    }

    fn changed(&self) {
        self.0.version.send_modify(|version| *version += 1);
    }

    fn sources(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.sources.lock().expect("no code panics while it holds this")
    }

    fn commands(&self) -> MutexGuard<'_, Commands> {
        self.0
            .commands
            .lock()
            .expect("no code panics while it holds this")
    }
}

impl SourceDesk {
    /// The next request; never without a desk, which lives as long as this.
    pub async fn next(&mut self) -> Request {
        match self.requests.recv().await {
            Some(request) => request,
            // Another task of the same source opened its side: this one is on its way out.
            None => std::future::pending().await,
        }
    }

    /// Whether the relay may ask for a start at all.
    #[must_use]
    pub fn may_start(&self) -> bool {
        let allowed = self.desk.0.allow.of(&self.source);
        allowed.permits(Action::Start) || allowed.permits(Action::Restart)
    }

    /// What the next start runs, and who set that in place of the configured command.
    #[must_use]
    pub fn argv(&self) -> (Vec<String>, Option<SetCommand>) {
        let commands = self.desk.commands();
        match commands.of(&self.source, &self.configured) {
            Some(set) => (set.argv.clone(), Some(set.clone())),
            None => (self.configured.clone(), None),
        }
    }

    /// The run that goes on now; empty: none.
    pub fn set_running(&self, run_id: &str) {
        let mut sources = self.desk.sources();
        let Some(entry) = sources.get_mut(&self.source) else {
            return;
        };
        if entry.run_id != run_id {
            run_id.clone_into(&mut entry.run_id);
            drop(sources);
            self.desk.changed();
        }
    }
}

async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(Reply<T>) -> Request,
) -> Result<T, Refused> {
    let stuck = || {
        Refused::new(
            RefusalKind::Failed,
            "the source does not answer; look at the agent's log",
        )
    };
    let (reply, answer) = oneshot::channel();
    requests.try_send(request(reply)).map_err(|_| stuck())?;
    answer.await.unwrap_or_else(|_| Err(stuck()))
}

fn refusal(command_id: u64, refused: Refused) -> v1::CommandResult {
    v1::CommandResult {
        command_id,
        refusal: refused.message,
        refusal_kind: refused.kind.into(),
        ..v1::CommandResult::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::allow::Allowed;
    use crate::edge::MaskRules;

    fn words(command: &str) -> Vec<String> {
        command.split_whitespace().map(str::to_owned).collect()
    }

    struct World {
        desk: Desk,
        side: SourceDesk,
        _directory: tempfile::TempDir,
    }

    fn world(allow: &str) -> World {
        world_of(allow, &words("make all"), Masks::new())
    }

    fn world_of(allow: &str, configured: &[String], masks: Masks) -> World {
        let directory = tempfile::tempdir().unwrap();
        let allowed = Allowed::new(toml::from_str(allow).unwrap()).unwrap();
        let allow = AllowList::new([("nightly".to_owned(), allowed)].into());
        let desk = Desk::new(allow, Commands::open(directory.path()).unwrap(), masks);
        let side = desk.open("nightly", configured);
        World {
            desk,
            side,
            _directory: directory,
        }
    }

    fn command(action: CommandAction) -> v1::Command {
        v1::Command {
            command_id: 7,
            action: action.into(),
            source: "nightly".to_owned(),
            principal: "ada".to_owned(),
            ..v1::Command::default()
        }
    }

    fn set(argv: &str, expected: &str) -> v1::Command {
        v1::Command {
            argv: words(argv),
            expected_argv: words(expected),
            ..command(CommandAction::SetCommand)
        }
    }

    #[tokio::test]
    async fn what_the_configuration_does_not_name_is_refused_with_the_setting_and_noted() {
        let mut world = world("allow = [\"start\"]");
        let result = world.desk.handle(command(CommandAction::Stop)).await;
        assert_eq!(
            (result.command_id, result.refusal_kind()),
            (7, RefusalKind::Forbidden)
        );
        assert!(result.refusal.contains("[control.nightly]"), "{}", result.refusal);
        let Request::Note(note) = world.side.next().await else {
            panic!("the refusal is noted in the run's log")
        };
        assert!(note.contains("ada asked for stop; refused"), "{note}");
    }

    #[tokio::test]
    async fn an_unknown_source_is_said() {
        let world = world("");
        let mut start = command(CommandAction::Start);
        "other".clone_into(&mut start.source);
        let result = world.desk.handle(start).await;
        assert_eq!(result.refusal_kind(), RefusalKind::UnknownSource);
    }

    #[tokio::test]
    async fn a_permitted_request_reaches_the_source_and_its_answer_comes_back() {
        let mut world = world("allow = [\"start\"]");
        let source = async {
            let Request::Start { principal, reply } = world.side.next().await else {
                panic!("it is a start")
            };
            assert_eq!(principal, "ada");
            let run = v1::Run {
                run_id: "r1".to_owned(),
                ..v1::Run::default()
            };
            reply.send(Ok(run)).unwrap();
        };
        let (result, ()) = tokio::join!(world.desk.handle(command(CommandAction::Start)), source);
        assert_eq!(result.run.unwrap().run_id, "r1");
    }

    /// Whoever may see and change a command does not see what is masked, and cannot set what stands for it.
    #[tokio::test]
    async fn secrets_in_commands_are_not_told() {
        let rules = MaskRules {
            env: vec!["TOKEN".to_owned()],
            ..MaskRules::default()
        };
        let environment = [("TOKEN".to_owned(), "hunter2!".to_owned())];
        let (mask, _) = MaskSettings::new(&rules, &environment, None).unwrap();
        let masks = Masks::from([("nightly".to_owned(), Arc::new(mask))]);
        let configured = words("deploy --token=hunter2! staging");
        let mut world = world_of("allow = [\"start\", \"set_command\"]", &configured, masks);
        let desk = world.desk.clone();
        let mut status = v1::SourceStatus {
            source: "nightly".to_owned(),
            message: "deploy: hunter2! was refused".to_owned(),
            ..v1::SourceStatus::default()
        };
        desk.complete(&mut status);
        assert_eq!(status.argv, words("deploy --token=*** staging"));
        assert_eq!(status.message, "deploy: *** was refused");

        let start = async {
            let Request::Start { reply, .. } = world.side.next().await else {
                panic!("it is a start")
            };
            let run = v1::Run {
                argv: configured.clone(),
                env: [("TOKEN".to_owned(), "hunter2!".to_owned())].into(),
                ..v1::Run::default()
            };
            reply.send(Ok(run)).unwrap();
        };
        let (started, ()) = tokio::join!(desk.handle(command(CommandAction::Start)), start);
        assert!(!format!("{started:?}").contains("hunter2"), "{started:?}");

        let edited = set("deploy --token=*** production", "deploy --token=*** staging");
        let refused = desk.handle(edited).await;
        assert!(refused.refusal.contains("write out"), "{}", refused.refusal);
        assert_eq!(world.side.argv().0, configured);
        let changed = desk
            .handle(set("deploy --dry-run", "deploy --token=*** staging"))
            .await;
        assert_eq!(
            (changed.refusal.as_str(), changed.previous_argv),
            ("", words("deploy --token=*** staging"))
        );
        let conflict = desk.handle(set("deploy", "deploy --token=*** staging")).await;
        assert_eq!(conflict.refusal_kind(), RefusalKind::Conflict);
    }

    #[tokio::test]
    async fn a_command_is_changed_only_by_who_has_seen_it_and_can_be_reverted() {
        let world = world("allow = [\"set_command\"]\ncommand_pattern = \"make [a-z]+\"");
        let desk = &world.desk;
        let result = desk.handle(set("make check", "make other")).await;
        assert_eq!(result.refusal_kind(), RefusalKind::Conflict);
        let result = desk.handle(set("rm -rf", "make all")).await;
        assert_eq!(result.refusal_kind(), RefusalKind::Forbidden);
        assert_eq!(world.side.argv().0, words("make all"));

        let result = desk.handle(set("make check", "make all")).await;
        assert_eq!(
            (result.refusal.as_str(), result.previous_argv),
            ("", words("make all"))
        );
        let (argv, set_by) = world.side.argv();
        assert_eq!(
            (argv, set_by.unwrap().principal),
            (words("make check"), "ada".to_owned())
        );
        let mut status = v1::SourceStatus {
            source: "nightly".to_owned(),
            ..v1::SourceStatus::default()
        };
        desk.complete(&mut status);
        assert_eq!(
            (status.argv, status.configured_argv),
            (words("make check"), words("make all"))
        );

        let result = desk.handle(set("", "make check")).await;
        assert_eq!(result.previous_argv, words("make check"));
        assert_eq!(world.side.argv(), (words("make all"), None));
    }
}
