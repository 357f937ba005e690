//! Everything that is tortured together for some cycles: one relay, two agents with two files and a command each,
//! three subscribers, and the networks between them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millstream_client::Start;
use millstream_proto::v1::{EndReason, Stream};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Tally;
use super::fault::Fault;
use super::run::{Desk, Run, State};
use super::source::{Order, Source};
use super::verdict::{Verdict, compare};
use super::watcher::{Habit, Watcher};
use crate::agent::Agent;
use crate::proxy::{Proxy, Weather};
use crate::relay::Relay;
use crate::wait::{PATIENCE, eventually, eventually_within};

const AGENTS: usize = 2;
const FILES_PER_AGENT: usize = 2;

/// A stream with less text than this has a notice at most.
const NOTICE_BYTES: u64 = 400;

#[derive(Debug)]
pub struct World {
    relay: Relay,
    to_agents: Proxy,
    to_readers: Proxy,
    agents: Vec<Agent>,
    sources: Vec<Arc<Source>>,
    /// Knows the run of each agent's command.
    desk: Desk,
    orders: watch::Sender<Order>,
    writers: JoinSet<()>,
    watchers: Vec<Watcher>,
}

impl World {
    pub async fn start(dir: &Path, mut random: fastrand::Rng) -> Self {
        let relay = Relay::start(dir).await;
        let to_agents = Proxy::start(relay.authority()).await;
        let to_readers = Proxy::start(relay.authority()).await;
        let (orders, told) = watch::channel(Order::Begin);
        let mut writers = JoinSet::new();
        let mut sources = Vec::new();
        let mut agents = Vec::new();
        let runs_of = (0..AGENTS).map(|host| dir.join(format!("agent-host-{host}/runs")));
        // Seeds of files come first, so that no run writes what a file does.
        let desk = Desk::open(dir, runs_of.collect(), told.clone(), AGENTS * FILES_PER_AGENT);
        for host in 0..AGENTS {
            let config = dir.join(format!("host-{host}.toml"));
            std::fs::write(&config, run_config(host, &desk.socket)).expect("a file can be written");
            let mut flags = vec!["--config".to_owned(), config.display().to_string()];
            for file in 0..FILES_PER_AGENT {
                let seed = host * FILES_PER_AGENT + file;
                let source = Source::new(dir.join(format!("build-{seed}.log")), seed);
                flags.extend(["--file".to_owned(), source.path.display().to_string()]);
                writers.spawn(Arc::clone(&source).write(random.fork(), told.clone()));
                sources.push(source);
            }
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let agent = Agent::start(dir, &to_agents.url(), &format!("host-{host}"), &flags).await;
            agents.push(agent);
        }
        let mut world = Self {
            relay,
            to_agents,
            to_readers,
            agents,
            sources,
            desk,
            orders,
            writers,
            watchers: Vec::new(),
        };
        eventually("every stream has lines", async || {
            let streams = world.relay.streams("").await;
            let begun = streams.iter().filter(|stream| stream.next_sequence > 0).count();
            (begun == AGENTS * (FILES_PER_AGENT + 1)).then_some(())
        })
        .await;
        world.orders.send_replace(Order::Write);
        let habits = [
            ("from the beginning", Start::Beginning, 0),
            ("slow, from the beginning", Start::Beginning, 20),
            ("from the last 20 lines", Start::LastLines(20), 0),
        ];
        for (name, start, rest_ms) in habits {
            let habit = Habit {
                name,
                start,
                rest: Duration::from_millis(rest_ms),
            };
            let register = world.desk.register.clone();
            let watcher = Watcher::start(world.to_readers.url(), habit, &world.sources, register);
            world.watchers.push(watcher);
        }
        world
    }

    /// One fault, and the recovery from it: lines arrive again.
    ///
    /// # Errors
    /// When none do.
    pub async fn cycle(&mut self, random: &mut fastrand::Rng) -> Result<Fault, String> {
        let fault = Fault::choose(random);
        let victim = random.usize(..self.agents.len());
        // When in the life of the writers it strikes.
        tokio::time::sleep(Duration::from_millis(random.u64(10..250))).await;
        let while_away = Duration::from_millis(random.u64(0..200));
        match fault {
            Fault::AgentKilled => {
                self.agents[victim].kill();
                tokio::time::sleep(while_away).await;
                self.agents[victim].start_again().await;
            }
            Fault::AgentStopped => {
                self.agents[victim].stop().await;
                tokio::time::sleep(while_away).await;
                self.agents[victim].start_again().await;
            }
            Fault::RelayKilled => {
                self.relay.kill();
                tokio::time::sleep(while_away).await;
                self.relay.start_again().await;
            }
            Fault::RelayStopped => {
                self.relay.stop().await;
                self.relay.start_again().await;
            }
            Fault::BothKilled => {
                self.agents[victim].kill();
                self.relay.kill();
                tokio::time::sleep(while_away).await;
                self.relay.start_again().await;
                self.agents[victim].start_again().await;
            }
            Fault::SupervisorKilled => {
                let run = self.living_run(victim).await;
                // It may not read the spool, nor delete what it has sent, before that was looked at.
                self.agents[victim].process().signal(Signal::STOP);
                self.kill_supervisor(&run).await;
                tokio::time::sleep(while_away).await;
                self.agents[victim].process().signal(Signal::CONT);
            }
            Fault::SupervisorAndAgentKilled => {
                let run = self.living_run(victim).await;
                self.agents[victim].kill();
                self.kill_supervisor(&run).await;
                tokio::time::sleep(while_away).await;
                self.agents[victim].start_again().await;
            }
            Fault::AgentsCut => self.to_agents.cut(),
            Fault::ReadersCut => self.to_readers.cut(),
            Fault::AgentsReset => {
                let bytes = random.u64(1..40_000);
                self.weather(Weather::ResetAfter(bytes), while_away).await;
            }
            Fault::AgentsStalled => self.weather(Weather::Stalled, while_away).await,
            Fault::AgentsSlow => self.weather(Weather::Slow(20_000), while_away).await,
            Fault::AgentsRefused => {
                self.to_agents.set(Weather::Refusing);
                self.to_agents.cut();
                tokio::time::sleep(while_away).await;
                self.to_agents.set(Weather::Clear);
            }
        }
        let before = self.progress().await;
        eventually_within(
            PATIENCE,
            &format!("lines arrive again after: {fault}"),
            async || {
                let now = self.progress().await;
                let has_grown = |(now, before): (&Progress, &Progress)| {
                    now.bytes > 0 && (now.instance != before.instance || now.bytes > before.bytes)
                };
                now.iter().zip(&before).all(has_grown).then_some(())
            },
        )
        .await;
        Ok(fault)
    }

    /// The run of an agent's command that goes on.
    async fn living_run(&self, agent: usize) -> Run {
        eventually("a run goes on", async || self.desk.register.living(agent)).await
    }

    async fn kill_supervisor(&self, run: &Run) {
        let bytes = run.kill_supervisor().await;
        if let Some(run) = self.desk.register.lock().get_mut(&run.run_id) {
            run.state = State::Lost { bytes };
        }
    }

    async fn weather(&self, weather: Weather, lasts: Duration) {
        self.to_agents.set(weather);
        tokio::time::sleep(lasts).await;
        self.to_agents.set(Weather::Clear);
    }

    /// What is stored of each file, and of each command's run that goes on.
    async fn progress(&self) -> Vec<Progress> {
        let streams = self.relay.streams("").await;
        let of = |instance: String| {
            let stored = streams.iter().find(|stream| stream.instance == instance);
            Progress {
                bytes: stored.map_or(0, |stream| stream.text_bytes),
                instance,
            }
        };
        let files = self
            .sources
            .iter()
            .map(|source| source.path.display().to_string());
        let runs = (0..AGENTS).map(|agent| {
            self.desk
                .register
                .living(agent)
                .map_or_else(String::new, |run| run.run_id)
        });
        files.chain(runs).map(of).collect()
    }

    /// Lets the writers rest, waits until everything has arrived everywhere, and compares it.
    ///
    /// # Errors
    /// What differs.
    pub async fn compare(&mut self, tally: &mut Tally) -> Result<(), String> {
        self.orders.send_replace(Order::Rest);
        for source in &self.sources {
            source.rests().await;
        }
        for source in &self.sources {
            let count = source.written_lines.load(Ordering::Relaxed);
            let bytes = source.written_bytes.load(Ordering::Relaxed);
            let path = source.path.display().to_string();
            let (_, stored) = self.arrived(&path, bytes).await?;
            let verdict = compare(&stored, source.lines, count);
            self.judge(tally, &path, verdict)?;
            self.compare_watchers(tally, &path, count, &[]).await?;
        }
        for agent in 0..AGENTS {
            eventually("a run rests", async || {
                let run = self.desk.register.living(agent);
                run.filter(|run| matches!(run.state, State::Resting { .. }))
            })
            .await;
        }
        self.compare_runs(tally).await?;
        self.orders.send_replace(Order::Write);
        Ok(())
    }

    /// Compares every run that was ever begun.
    async fn compare_runs(&self, tally: &mut Tally) -> Result<(), String> {
        let mut runs: Vec<Run> = self.desk.register.lock().values().cloned().collect();
        if *self.orders.borrow() == Order::Stop {
            // They are begun again and again, to end at once.
            runs.retain(|run| run.state.is_over());
        }
        for run in &runs {
            let name = &run.run_id;
            let (bytes, reason) = match run.state {
                State::Lost { bytes } => (bytes, Some(EndReason::Lost)),
                State::Ended { bytes, .. } => (bytes, Some(EndReason::Exited)),
                State::Resting { bytes, .. } => (bytes, None),
                State::Writing => return Err(format!("run {name} writes although all were told to rest")),
            };
            let (stream, stored) = self.arrived(name, bytes).await?;
            if stored.len() as u64 != bytes {
                return Err(format!(
                    "{} bytes are stored of run {name}, not {bytes}",
                    stored.len()
                ));
            }
            let ended = stream
                .end
                .as_ref()
                .map(|end| (end.reason(), end.exit_code.unwrap_or(0)));
            if ended != reason.map(|reason| (reason, 0)) {
                return Err(format!("run {name} ended as {ended:?}, not as {reason:?}"));
            }
            let whole = memchr::memrchr(b'\n', &stored).map_or(0, |end| end + 1);
            let (lines, fragment) = stored.split_at(whole);
            let count = memchr::memchr_iter(b'\n', lines).count() as u64;
            let mut verdict = compare(lines, run.lines, count);
            let mut next = Vec::new();
            run.lines.append(count, &mut next);
            verdict.garbled += u64::from(!next.starts_with(fragment));
            self.judge(tally, name, verdict)?;
            self.compare_watchers(tally, name, count, fragment).await?;
        }
        self.compare_unknown(&runs).await
    }

    /// A run whose agent was killed before it had a supervisor is lost, and empty.
    async fn compare_unknown(&self, runs: &[Run]) -> Result<(), String> {
        let streams = self.relay.streams("source=run").await;
        let mut unknown = streams
            .iter()
            .filter(|stream| runs.iter().all(|run| run.run_id != stream.instance));
        match unknown.find(|stream| stream.end.is_some() && stream.text_bytes > NOTICE_BYTES) {
            Some(stream) => Err(format!("there is a run that nobody began: {stream:?}")),
            None => Ok(()),
        }
    }

    fn judge(&self, tally: &mut Tally, what: &str, verdict: Verdict) -> Result<(), String> {
        tally.comparisons += 1;
        if verdict.is_good() {
            return Ok(());
        }
        tally.verdict = verdict;
        Err(format!(
            "what is stored of {what} is not what was written: {verdict:?}"
        ))
    }

    async fn compare_watchers(
        &self,
        tally: &mut Tally,
        instance: &str,
        count: u64,
        fragment: &[u8],
    ) -> Result<(), String> {
        for watcher in &self.watchers {
            let mut outcome = Ok(());
            let what = format!("subscriber {} has all of {instance}", watcher.habit.name);
            eventually(&what, async || match watcher.has(instance, count, fragment) {
                Ok(has_all) => has_all.then_some(()),
                Err(problem) => {
                    outcome = Err(problem);
                    Some(())
                }
            })
            .await;
            outcome?;
            tally.comparisons += 1;
        }
        Ok(())
    }

    /// Waits until so much of a file or run is stored, with the end of one that ended, and returns it.
    async fn arrived(&self, instance: &str, bytes: u64) -> Result<(Stream, Vec<u8>), String> {
        let must_end = self
            .desk
            .register
            .lock()
            .get(instance)
            .is_some_and(|run| run.state.is_over());
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut streams = self.relay.streams("").await;
            streams.retain(|stream| stream.instance == instance);
            let is_late = tokio::time::Instant::now() > deadline;
            if let (Some(stream), true) = (streams.pop(), streams.is_empty()) {
                // It counts an end of line for each piece of a line too, so it only tells when to look.
                if (stream.text_bytes >= bytes && (stream.end.is_some() || !must_end)) || is_late {
                    let stored = self.relay.raw(stream.stream_id).await;
                    if stored.len() as u64 >= bytes || is_late {
                        return Ok((stream, stored));
                    }
                }
            } else if is_late {
                return Err(format!("{instance} is not exactly one stream"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends everything, compares the runs to their ends, and counts what was written.
    ///
    /// # Errors
    /// What differs.
    pub async fn finish(mut self, tally: &mut Tally) -> Result<(), String> {
        self.orders.send_replace(Order::Stop);
        while self.writers.join_next().await.is_some() {}
        for agent in 0..AGENTS {
            eventually("every run has ended", async || {
                self.desk.register.living(agent).is_none().then_some(())
            })
            .await;
        }
        self.compare_runs(tally).await?;
        for source in &self.sources {
            tally.lines += source.written_lines.load(Ordering::Relaxed);
            tally.bytes += source.written_bytes.load(Ordering::Relaxed);
            tally.rotations += source.rotations.load(Ordering::Relaxed);
        }
        for run in self.desk.register.lock().values() {
            tally.runs += 1;
            match run.state {
                State::Lost { bytes } => {
                    tally.lost_runs += 1;
                    tally.bytes += bytes;
                }
                State::Ended { lines, bytes } | State::Resting { lines, bytes } => {
                    tally.lines += lines;
                    tally.bytes += bytes;
                }
                State::Writing => {}
            }
        }
        for agent in &mut self.agents {
            agent.stop().await;
        }
        self.relay.stop().await;
        Ok(())
    }
}

/// What is stored of one file or run.
struct Progress {
    instance: String,
    bytes: u64,
}

/// An agent whose one configured source runs this binary again and again.
fn run_config(agent: usize, socket: &Path) -> String {
    let writer = std::env::current_exe().expect("a running program knows its executable");
    let command = [
        writer.display().to_string(),
        "write-lines".to_owned(),
        socket.display().to_string(),
        agent.to_string(),
    ];
    format!(
        "[sources.run]\nplugin = \"exec\"\ncommand = {command:?}\nrestart = \"always\"\n\
         restart_delay = \"50ms\"\nrestart_limit = \"200ms\"\n"
    )
}
