//! Everything that is tortured together for some cycles: one relay, two agents with two files each, three
//! subscribers, and the networks between them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millstream_client::Start;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Tally;
use super::fault::Fault;
use super::source::{Order, Source};
use super::verdict::compare;
use super::watcher::{Habit, Watcher};
use crate::agent::Agent;
use crate::proxy::{Proxy, Weather};
use crate::relay::Relay;
use crate::wait::{PATIENCE, eventually, eventually_within};

const AGENTS: usize = 2;
const FILES_PER_AGENT: usize = 2;

#[derive(Debug)]
pub struct World {
    relay: Relay,
    to_agents: Proxy,
    to_readers: Proxy,
    agents: Vec<Agent>,
    sources: Vec<Arc<Source>>,
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
        for host in 0..AGENTS {
            let mut flags = Vec::new();
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
            orders,
            writers,
            watchers: Vec::new(),
        };
        eventually("every stream has lines", async || {
            let streams = world.relay.streams("").await;
            let begun = streams.iter().filter(|stream| stream.next_sequence > 0).count();
            (begun == AGENTS * FILES_PER_AGENT).then_some(())
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
            let watcher = Watcher::start(world.to_readers.url(), habit, &world.sources);
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
        let before = self.stored_bytes().await;
        eventually_within(
            PATIENCE,
            &format!("lines arrive again after: {fault}"),
            async || {
                let now = self.stored_bytes().await;
                now.iter()
                    .zip(&before)
                    .all(|(now, before)| now > before)
                    .then_some(())
            },
        )
        .await;
        Ok(fault)
    }

    async fn weather(&self, weather: Weather, lasts: Duration) {
        self.to_agents.set(weather);
        tokio::time::sleep(lasts).await;
        self.to_agents.set(Weather::Clear);
    }

    /// Bytes of each stream, by stream id.
    async fn stored_bytes(&self) -> Vec<u64> {
        let streams = self.relay.streams("").await;
        streams.iter().map(|stream| stream.text_bytes).collect()
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
            let path = source.path.display();
            let stored = self.arrived(source, bytes).await?;
            let verdict = compare(&stored, source.lines, count);
            tally.comparisons += 1;
            if !verdict.is_good() {
                tally.verdict = verdict;
                return Err(format!(
                    "what is stored of {path} is not what was written: {verdict:?}"
                ));
            }
            for watcher in &self.watchers {
                let mut outcome = Ok(());
                let what = format!("subscriber {} has all of {path}", watcher.habit.name);
                eventually(&what, async || match watcher.has(source, count) {
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
        }
        self.orders.send_replace(Order::Write);
        Ok(())
    }

    /// Waits until so much of a source is stored, and returns it.
    async fn arrived(&self, source: &Source, bytes: u64) -> Result<Vec<u8>, String> {
        let path = source.path.display().to_string();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut streams = self.relay.streams(&format!("path={path}")).await;
            let (Some(stream), true) = (streams.pop(), streams.is_empty()) else {
                return Err(format!("{path} is not exactly one stream"));
            };
            let is_late = tokio::time::Instant::now() > deadline;
            // It counts an end of line for each piece of a line too, so it only tells when to look.
            if stream.text_bytes >= bytes || is_late {
                let stored = self.relay.raw(stream.stream_id).await;
                if stored.len() as u64 >= bytes || is_late {
                    return Ok(stored);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends everything and counts what was written.
    pub async fn finish(mut self, tally: &mut Tally) {
        self.orders.send_replace(Order::Stop);
        while self.writers.join_next().await.is_some() {}
        for source in &self.sources {
            tally.lines += source.written_lines.load(Ordering::Relaxed);
            tally.bytes += source.written_bytes.load(Ordering::Relaxed);
            tally.rotations += source.rotations.load(Ordering::Relaxed);
        }
        for agent in &mut self.agents {
            agent.stop().await;
        }
        self.relay.stop().await;
    }
}
