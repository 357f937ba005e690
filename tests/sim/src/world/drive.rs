//! Lets faults happen and end.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::World;
use crate::dice::Dice;
use crate::disk::{DeathWish, Mood, RELAY};
use crate::faults::Fault;
use crate::log::Kind;
use crate::net::{Death, Link};
use crate::process::{AgentProcess, AgentSpec};

/// What ends a fault.
#[derive(Clone, Copy, Debug)]
enum Cure {
    Link { host: usize },
    RelayStarts,
    AgentStarts { agent: usize },
    TwinDies { agent: usize },
    DiskIsWell,
    ReaderHurries { reader: usize },
}

/// Cures by the time when they are due, in order.
#[derive(Debug, Default)]
struct Cures {
    due: BTreeMap<(Instant, u64), Cure>,
    count: u64,
}

impl Cures {
    fn add(&mut self, after: Duration, cure: Cure) {
        self.count += 1;
        self.due.insert((Instant::now() + after, self.count), cure);
    }
}

impl World {
    /// Until the active time is over.
    pub(super) async fn drive(&mut self, dice: &Dice) {
        let end = Instant::now() + self.active;
        let longest_pause = 1000 << dice.below(0..5);
        let mut cures = Cures::default();
        let mut next_fault = Instant::now() + dice.wait(10..longest_pause);
        let died = std::sync::Arc::clone(&self.machine.disk.died);
        while Instant::now() < end && self.machine.trace.is_clean() {
            let next_cure = cures.due.keys().next().map(|(at, _)| *at);
            let wake = [Some(next_fault), next_cure, Some(end)]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                biased;
                () = died.notified() => {
                    if let Some(death) = self.machine.disk.take_death() {
                        self.crash_relay(death);
                        cures.add(dice.wait(1..20_000), Cure::RelayStarts);
                    }
                }
                () = sleep_until(wake.unwrap_or(end)) => {}
            }
            let now = Instant::now();
            while let Some(entry) = cures.due.first_entry()
                && entry.key().0 <= now
            {
                let cure = entry.remove();
                self.machine.trace.event(format_args!("cure: {cure:?}"));
                self.cure(cure);
            }
            if now >= next_fault {
                let fault = Fault::draw(dice, self.agents.len(), self.readers.len());
                let duration = fault.duration(dice);
                self.machine
                    .trace
                    .event(format_args!("fault: {fault:?} for {} ms", duration.as_millis()));
                if let Some(cure) = self.strike(fault).await {
                    cures.add(duration, cure);
                }
                next_fault = Instant::now() + dice.wait(10..longest_pause);
            }
        }
    }

    /// Lets a fault happen; returns what ends it.
    async fn strike(&mut self, fault: Fault) -> Option<Cure> {
        let machine = self.machine.clone();
        match fault {
            Fault::Partition {
                host,
                is_from_host,
                both_ways,
                still_connects,
            } => {
                let name = self.host(host);
                for (from, to, is_blocked) in [
                    (name.as_str(), RELAY, both_ways || is_from_host),
                    (RELAY, name.as_str(), both_ways || !is_from_host),
                ] {
                    let link = machine.net.link(from, to);
                    let link = Link {
                        is_blocked,
                        still_connects,
                        ..link
                    };
                    machine.net.set_link(from, to, link);
                }
                Some(Cure::Link { host })
            }
            Fault::SlowLink {
                host,
                latency,
                bytes_per_ms,
            } => {
                let name = self.host(host);
                for (from, to) in [(name.as_str(), RELAY), (RELAY, name.as_str())] {
                    let link = Link {
                        latency,
                        bytes_per_ms,
                        ..machine.net.link(from, to)
                    };
                    machine.net.set_link(from, to, link);
                }
                Some(Cure::Link { host })
            }
            Fault::Reset { host } => {
                machine.net.reset(&self.host(host), RELAY);
                None
            }
            Fault::Cut {
                host,
                bytes,
                is_answer,
            } => {
                machine.net.reset_after(&self.host(host), bytes, is_answer);
                None
            }
            Fault::RelayDies(death) => self.crash_relay(death).then_some(Cure::RelayStarts),
            Fault::RelayDiesAtCall { calls, death } => {
                machine.disk.wish(Some(DeathWish { calls, death }));
                None
            }
            Fault::RelayStops => {
                let relay = self.relay.take()?;
                relay.stop(&machine, &mut self.graveyard).await;
                Some(Cure::RelayStarts)
            }
            Fault::AgentDies { agent, death } => {
                let process = self.take_agent(agent)?;
                process.crash(&machine, death);
                Some(Cure::AgentStarts { agent })
            }
            Fault::AgentStops { agent } => {
                let process = self.take_agent(agent)?;
                process.stop(&machine).await;
                Some(Cure::AgentStarts { agent })
            }
            Fault::AgentTwice { agent } => {
                if self.twins[agent].is_some() || self.kind(agent) != Kind::File {
                    return None;
                }
                let spec = &self.specs[agent];
                let twin = AgentSpec {
                    host: format!("{}-twin", spec.host),
                    ..spec.clone()
                };
                self.twins[agent] = Some(AgentProcess::start(&machine, &twin));
                Some(Cure::TwinDies { agent })
            }
            Fault::Disk(mood) => {
                machine.disk.set_mood(mood);
                Some(Cure::DiskIsWell)
            }
            Fault::ReaderIsSlow { reader } => {
                self.readers[reader].whims.is_slow.store(true, Ordering::Relaxed);
                Some(Cure::ReaderHurries { reader })
            }
            Fault::ReaderDies { reader, events } => {
                self.readers[reader]
                    .whims
                    .crash_in
                    .store(events, Ordering::Relaxed);
                None
            }
        }
    }

    fn cure(&mut self, cure: Cure) {
        match cure {
            Cure::Link { host } => {
                let name = self.host(host);
                self.machine.net.set_link(&name, RELAY, Link::default());
                self.machine.net.set_link(RELAY, &name, Link::default());
            }
            Cure::RelayStarts => {
                if self.relay.is_none() {
                    self.start_relay();
                }
            }
            Cure::AgentStarts { agent } => {
                if self.agents[agent].is_none() {
                    self.agents[agent] = Some(AgentProcess::start(&self.machine, &self.specs[agent]));
                }
            }
            Cure::TwinDies { agent } => {
                if let Some(twin) = self.twins[agent].take() {
                    twin.crash(&self.machine, Death::Killed);
                }
            }
            Cure::DiskIsWell => self.machine.disk.set_mood(Mood::Well),
            Cure::ReaderHurries { reader } => {
                self.readers[reader].whims.is_slow.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Ends every fault there is.
    pub(super) fn heal(&mut self) {
        let disk = self.machine.disk.clone();
        disk.wish(None);
        if let Some(death) = disk.take_death() {
            self.crash_relay(death);
        }
        self.cure(Cure::DiskIsWell);
        self.cure(Cure::RelayStarts);
        for agent in 0..self.agents.len() {
            self.cure(Cure::TwinDies { agent });
            self.cure(Cure::AgentStarts { agent });
        }
        for host in 0..self.agents.len() + self.readers.len() {
            self.cure(Cure::Link { host });
        }
        for reader in 0..self.readers.len() {
            self.cure(Cure::ReaderHurries { reader });
        }
    }

    /// False: there was none.
    fn crash_relay(&mut self, death: Death) -> bool {
        let Some(relay) = self.relay.take() else {
            return false;
        };
        // A death at a call of the store would be another one's.
        self.machine.disk.take_death();
        relay.crash(&self.machine, death, &mut self.graveyard);
        true
    }

    /// An agent that may crash.
    fn take_agent(&mut self, agent: usize) -> Option<AgentProcess> {
        if self.kind(agent) == Kind::Pipe {
            return None;
        }
        self.agents[agent].take()
    }

    fn kind(&self, agent: usize) -> Kind {
        self.specs[agent].logs[0].kind
    }

    /// Agents, then readers.
    fn host(&self, number: usize) -> String {
        match self.specs.get(number) {
            Some(spec) => spec.host.clone(),
            None => self.readers[number - self.specs.len()].spec.host.clone(),
        }
    }
}
