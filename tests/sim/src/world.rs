//! One run: a relay, agents, readers and builds, what the seed does to them, and what has to hold in the end.

mod drive;

use std::time::Duration;

use millstream_client::Start;
use millstream_proto::block::OpenBlock;
use millstream_relay::{CoreOptions, Fsync};
use millstream_store::LogStore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::disk::Disk;
use crate::log::{Kind, Log, Logs};
use crate::mutant::Mutant;
use crate::net::{Death, Net};
use crate::process::{AgentProcess, AgentSpec, Machine, RelayProcess};
use crate::reader::{Reader, ReaderSpec, SELECTORS};
use crate::tamper::Wire;
use crate::trace::Trace;

/// After the last fault is over, everything has to be delivered within this virtual time. The longest waits of
/// the product: an agent that was fenced comes again after 37 s, a dead connection is noticed after 40 s.
const SETTLE_LIMIT: Duration = Duration::from_secs(240);

/// Nothing may come again for this long after everything was delivered.
const QUIET: Duration = Duration::from_secs(25);

/// Everything of one run.
pub(crate) struct World {
    machine: Machine,
    logs: Logs,
    options: CoreOptions,
    wire: Wire,
    specs: Vec<AgentSpec>,
    /// `None`: crashed, and not started yet.
    relay: Option<RelayProcess>,
    agents: Vec<Option<AgentProcess>>,
    /// Second processes of agents.
    twins: Vec<Option<AgentProcess>>,
    readers: Vec<Reader>,
    /// Readers and builds.
    tasks: JoinSet<()>,
    graveyard: JoinSet<()>,
    /// For how long builds write and things go wrong.
    active: Duration,
}

impl World {
    /// Draws a world. Needs the virtual clock.
    pub(crate) fn draw(dice: &Dice, trace: &Trace, mutant: Option<Mutant>) -> Self {
        let fsync = match dice.below(0..5) {
            0 => Fsync::Interval(dice.wait(20..4000)),
            1 => Fsync::Never,
            _ => Fsync::Always,
        };
        let is_strict = fsync == Fsync::Always;
        let net = Net::new(dice.fork(), trace.clone());
        net.down("silent", Death::PowerCut);
        let machine = Machine {
            disk: Disk::new(is_strict, net.clone(), dice.fork(), trace.clone(), mutant),
            net,
            dice: dice.fork(),
            trace: trace.clone(),
        };
        let options = CoreOptions {
            fsync,
            max_unacked_bytes: dice.pick(&[16 << 10, 256 << 10, 16 << 20]),
            writer_queue_bytes: dice.pick(&[64 << 10, 64 << 20]),
            // Small, so that readers are sent to the store.
            ring_bytes_per_stream: dice.pick(&[1 << 10, 32 << 10, 2 << 20]),
            ring_bytes_total: dice.pick(&[16 << 10, 256 << 20]),
            ..CoreOptions::default()
        };
        let wire = Wire {
            dice: dice.fork(),
            repeats_blocks: dice.one_in(3),
            mutant,
        };
        let logs = Logs::default();
        let specs = (0..dice.size(1..4))
            .map(|number| draw_agent(dice, number, is_strict, &logs))
            .collect();
        let readers = (0..dice.size(1..5))
            .map(|number| draw_reader(dice, number, &machine, &logs))
            .collect();
        trace.event(format_args!(
            "blocks come again: {}, {options:?}",
            wire.repeats_blocks
        ));
        Self {
            machine,
            logs,
            options,
            wire,
            specs,
            relay: None,
            agents: Vec::new(),
            twins: Vec::new(),
            readers,
            tasks: JoinSet::new(),
            graveyard: JoinSet::new(),
            active: Duration::from_millis(dice.below(5_000..90_000)),
        }
    }

    /// Runs it to its end.
    pub(crate) async fn run(mut self, dice: &Dice) {
        let trace = self.machine.trace.clone();
        self.begin(dice);
        self.drive(dice).await;
        self.heal();
        trace.event(format_args!("all is well again"));
        let limit = Instant::now() + SETTLE_LIMIT;
        while trace.is_clean() && !self.missing().is_empty() {
            if Instant::now() > limit {
                for missing in self.missing() {
                    trace.breach(format_args!(
                        "not delivered {} s after the last fault: {missing}",
                        SETTLE_LIMIT.as_secs()
                    ));
                }
            }
            sleep(Duration::from_millis(250)).await;
        }
        if trace.is_clean() {
            trace.event(format_args!("delivered"));
            sleep(QUIET).await;
        }
        if trace.is_clean() {
            self.check_store();
        }
    }

    fn begin(&mut self, dice: &Dice) {
        self.start_relay();
        for spec in self.specs.clone() {
            self.agents.push(Some(AgentProcess::start(&self.machine, &spec)));
            self.twins.push(None);
        }
        for reader in &self.readers {
            // Some come late.
            let wait = if dice.one_in(2) {
                dice.wait(1..60_000)
            } else {
                Duration::ZERO
            };
            let reader = reader.clone();
            self.machine.net.up(&reader.spec.host);
            self.tasks.spawn(async move {
                sleep(wait).await;
                reader.run().await;
            });
        }
        for log in self.logs.all() {
            let (dice, trace, active) = (dice.fork(), self.machine.trace.clone(), self.active);
            self.tasks.spawn(write(log, dice, trace, active));
        }
    }

    fn start_relay(&mut self) {
        let relay = RelayProcess::start(&self.machine, self.options.clone(), self.wire.clone());
        self.relay = Some(relay);
    }

    /// What is not stored durably or not seen yet.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let records = self.machine.disk.records();
        for log in self.logs.all() {
            let record = records.iter().find(|record| record.source == log.source);
            let is_stored = record
                .is_some_and(|record| record.next_sequence >= log.len() && record.end.is_some() == log.ends);
            if !is_stored {
                let next = record.map(|record| record.next_sequence);
                missing.push(format!("{} stored to {next:?} of {}", log.source, log.len()));
            }
        }
        missing.extend(self.readers.iter().flat_map(Reader::missing));
        missing
    }

    /// Every line once, in order, byte for byte.
    fn check_store(&self) {
        let (store, trace) = (self.machine.disk.content(), &self.machine.trace);
        for record in self.machine.disk.records() {
            let Some(log) = self.logs.get(&record.source) else {
                trace.breach(format_args!("a stream of {}, which there is not", record.source));
                continue;
            };
            let blocks = store
                .read_blocks(record.stream_id, 0, usize::MAX)
                .expect("the store in memory can be read");
            let mut next = 0;
            for block in &blocks {
                let block = OpenBlock::open(block).expect("the relay checked it");
                for line in block.lines() {
                    if line.sequence != next || !log.is_line(next, line.text) || line.partial {
                        trace.breach(format_args!(
                            "{}: stored line {} is not line {next}",
                            record.source, line.sequence
                        ));
                    }
                    next += 1;
                }
            }
            trace.event(format_args!("{}: {next} lines stored", record.source));
            if next != log.len() || record.next_sequence != next {
                trace.breach(format_args!(
                    "{}: {next} lines stored, {} by its record, {} written",
                    record.source,
                    record.next_sequence,
                    log.len()
                ));
            }
        }
    }
}

/// A build: writes for a while and ends.
async fn write(log: Log, dice: Dice, trace: Trace, active: Duration) {
    // Some begin late, so that their streams appear to readers that are there.
    if dice.one_in(2) {
        sleep(active.mul_f64(dice.below(0..80) as f64 / 100.0)).await;
    }
    let most = 1 << dice.below(1..6);
    let longest_ms = 1 << dice.below(6..13);
    while trace.elapsed() < active && !dice.one_in(400) {
        log.write(dice.below(1..most + 1), &dice, trace.unix_us());
        sleep(dice.wait(1..longest_ms)).await;
    }
    log.stop();
}

fn draw_agent(dice: &Dice, number: usize, is_strict: bool, logs: &Logs) -> AgentSpec {
    let kind = match dice.below(0..6) {
        0 if is_strict => Kind::Pipe,
        1 | 2 if is_strict => Kind::Spool,
        _ => Kind::File,
    };
    let its_logs: Vec<_> = (0..dice.size(1..4))
        .map(|_| {
            // An end that was acknowledged and is then lost nobody would send again, as is the promise where
            // acknowledged is not durable; there sources are files, which have no end.
            let log = Log::new(format!("s{}", logs.all().len()), kind, is_strict);
            logs.add(log.clone());
            log
        })
        .collect();
    let relay = "http://relay:7171".to_owned();
    let nowhere = "http://nowhere:7171".to_owned();
    let silent = "http://silent:7171".to_owned();
    let relays = match dice.below(0..6) {
        0 => vec![nowhere, relay],
        1 => vec![silent, relay, nowhere],
        _ => vec![relay],
    };
    AgentSpec {
        host: format!("a{number}"),
        agent_id: format!("agent-{number}"),
        relays,
        compress_level: dice.pick(&[None, Some(1)]),
        logs: its_logs,
    }
}

fn draw_reader(dice: &Dice, number: usize, machine: &Machine, logs: &Logs) -> Reader {
    let start = match dice.below(0..8) {
        0 => Start::Now,
        1 | 2 => Start::LastLines(dice.below(1..50)),
        3 => {
            Start::SinceUnixUs(machine.trace.unix_us() + i64::from(dice.pick(&[0_i32, 1, 5, 20])) * 1_000_000)
        }
        _ => Start::Beginning,
    };
    let spec = ReaderSpec {
        host: format!("r{number}"),
        selector: dice.pick(&SELECTORS),
        start,
    };
    Reader::new(spec, machine.clone(), logs.clone())
}
