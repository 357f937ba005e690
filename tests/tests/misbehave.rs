//! Callers that misbehave, beside one who behaves: it gets every line, in time, and the relay's memory stays bounded.
//!
//! The attackers are a process of their own (`millstream-hostile`) that gets only what time nobody else wants (SCHED_IDLE,
//! see sched(7)): they stand for other machines, and would otherwise take time here that they would not have there.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millstream_proto::block::{BlockBuilder, OpenBlock};
use millstream_proto::v1::ingest_service_client::IngestServiceClient;
use millstream_proto::v1::push_request::Message;
use millstream_proto::v1::push_response::Message as Answer;
use millstream_proto::v1::tail_response::Message as Tailed;
use millstream_proto::v1::{Channel, Hello, OpenStream, PushBlock, PushRequest};
use millstream_tests::process::Process;
use millstream_tests::reader::follow;
use millstream_tests::relay::Relay;
use millstream_tests::stalls::{Stalls, is_within};
use millstream_tests::wait::{PATIENCE, eventually_within};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

/// Distance of the lines whose latency is measured.
const TICK: Duration = Duration::from_millis(5);

/// When a line was sent, and how long it took.
type Latencies = Arc<Mutex<Vec<(Instant, Duration)>>>;

/// Somebody who sends a line now and then, and somebody who follows them; they end when this is dropped.
struct Behaved {
    latencies: Latencies,
    tasks: JoinSet<()>,
}

/// One session of an agent with one stream; what is sent into it is pushed.
async fn session(url: &str, agent: &str, tasks: &mut JoinSet<()>) -> (mpsc::Sender<PushBlock>, Acked) {
    let mut client = IngestServiceClient::new(
        tonic::transport::Endpoint::from_shared(url.to_owned())
            .unwrap()
            .connect()
            .await
            .unwrap(),
    );
    let (requests, receiver) = mpsc::channel(64);
    let hello = Message::Hello(Hello {
        protocol_version: 1,
        agent_id: agent.to_owned(),
        host: agent.to_owned(),
        ..Hello::default()
    });
    let open = Message::OpenStream(OpenStream {
        handle: 1,
        source: agent.to_owned(),
        instance: "1".to_owned(),
        ..OpenStream::default()
    });
    for message in [hello, open] {
        requests
            .send(PushRequest {
                message: Some(message),
            })
            .await
            .unwrap();
    }
    let answers = client.push(ReceiverStream::new(receiver)).await.unwrap();
    let mut answers = answers.into_inner();
    let acked = Acked::default();
    let seen = acked.clone();
    tasks.spawn(async move {
        while let Ok(Some(answer)) = answers.message().await {
            match answer.message {
                Some(Answer::Ack(ack)) => *seen.0.lock().unwrap() = ack.streams[0].next_sequence,
                Some(Answer::Refusal(refusal)) => panic!("the one who behaves is refused: {refusal:?}"),
                _ => {}
            }
        }
    });
    let (blocks, mut waiting) = mpsc::channel::<PushBlock>(1);
    tasks.spawn(async move {
        while let Some(block) = waiting.recv().await {
            let message = Some(Message::Block(block));
            if requests.send(PushRequest { message }).await.is_err() {
                return;
            }
        }
    });
    (blocks, acked)
}

/// Sequence after the last line that is durable.
#[derive(Clone, Default)]
struct Acked(Arc<Mutex<u64>>);

fn block(first_sequence: u64, lines: &[Vec<u8>]) -> PushBlock {
    let mut builder = BlockBuilder::new();
    for line in lines {
        assert!(builder.push_line(line, 1, Channel::Stdout, false));
    }
    PushBlock {
        handle: 1,
        block: builder.finish(first_sequence),
        ..PushBlock::default()
    }
}

/// Stores so much text of a build, for those who read it all or search it.
async fn store(relay: &Relay, bytes: usize) {
    let log = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/cpython-build-1.log")).unwrap();
    let lines: Vec<Vec<u8>> = log.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let mut tasks = JoinSet::new();
    let (blocks, acked) = session(relay.url(), "history", &mut tasks).await;
    let (mut sequence, mut sent) = (0, 0);
    while sent < bytes {
        for chunk in lines.chunks(2000) {
            sent += chunk.iter().map(|line| line.len() + 1).sum::<usize>();
            // Never more on the way than a polite agent has.
            eventually_within(PATIENCE, "the relay stores", async || {
                (sequence - *acked.0.lock().unwrap() < 20_000).then_some(())
            })
            .await;
            blocks.send(block(sequence, chunk)).await.unwrap();
            sequence += chunk.len() as u64;
        }
    }
    eventually_within(PATIENCE, "all is stored", async || {
        (*acked.0.lock().unwrap() == sequence).then_some(())
    })
    .await;
}

impl Behaved {
    async fn start(relay: &Relay) -> Self {
        let latencies = Latencies::default();
        let mut tasks = JoinSet::new();
        let (blocks, _acked) = session(relay.url(), "polite", &mut tasks).await;
        let begin = Instant::now();
        let mut responses = {
            let request = follow("source=polite");
            relay.log_service().tail(request).await.unwrap().into_inner()
        };
        let received = Arc::clone(&latencies);
        tasks.spawn(async move {
            let mut next = 0;
            while let Some(response) = responses
                .message()
                .await
                .expect("the one who behaves is not cut off")
            {
                let now = Instant::now();
                let Some(Tailed::Block(found)) = response.message else {
                    continue;
                };
                for line in OpenBlock::open(&found.block.unwrap()).unwrap().lines() {
                    assert_eq!(line.sequence, next, "every line, in order");
                    next += 1;
                    let stamp = std::str::from_utf8(line.text).unwrap().parse().unwrap();
                    let sent = begin + Duration::from_micros(stamp);
                    received.lock().unwrap().push((sent, now - sent));
                }
            }
        });
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            for sequence in 0.. {
                ticks.tick().await;
                let stamp = begin.elapsed().as_micros().to_string().into_bytes();
                if blocks.send(block(sequence, &[stamp])).await.is_err() {
                    return;
                }
            }
        });
        let behaved = Self { latencies, tasks };
        behaved.get(Instant::now(), 1).await;
        behaved
    }

    /// Waits until so many lines that were sent after `since` are there.
    async fn get(&self, since: Instant, lines: usize) -> Measured {
        let what = "the one who behaves gets lines";
        // The tasks fail this when one of them does: then nothing comes any more.
        eventually_within(3 * PATIENCE, what, async || {
            let latencies = self.latencies.lock().unwrap();
            let found = latencies.iter().filter(|(sent, _)| *sent >= since);
            let found: Vec<_> = found.copied().collect();
            drop(latencies);
            (found.len() >= lines).then(|| Measured::of(found))
        })
        .await
    }

    /// What is sent from now on, for so long at least.
    async fn measure(&mut self, time: Duration) -> Measured {
        let lines = usize::try_from(time.as_millis() / TICK.as_millis()).unwrap();
        let measured = self.get(Instant::now(), lines).await;
        assert!(self.tasks.try_join_next().is_none(), "both go on");
        measured
    }
}

/// When lines were sent, and how long they took, ascending.
#[derive(Default)]
struct Measured(Vec<(Instant, Duration)>);

impl Measured {
    fn of(mut lines: Vec<(Instant, Duration)>) -> Self {
        lines.sort_unstable_by_key(|(_, latency)| *latency);
        Self(lines)
    }

    /// What so many thousandths took at most, in milliseconds.
    fn at(&self, part: usize) -> f64 {
        let last = self.0.len() - 1;
        self.0[(self.0.len() * part / 1000).min(last)].1.as_secs_f64() * 1000.0
    }

    fn and(self, other: Self) -> Self {
        Self::of([self.0, other.0].concat())
    }

    /// Without the lines that were on their way while the machine stood still.
    fn without(&self, stalls: &[Range<Instant>]) -> Self {
        let lines = self.0.iter().copied();
        let kept = lines.filter(|(sent, latency)| !is_within(stalls, &(*sent..*sent + *latency)));
        Self(kept.collect())
    }

    /// How many of the lines were left out of `kept`, percent.
    fn percent_left_out(&self, kept: &Self) -> f64 {
        let left_out = self.0.len() - kept.0.len();
        left_out as f64 * 100.0 / self.0.len() as f64
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, longest] = [500, 990, 1000].map(|part| self.at(part));
        write!(
            formatter,
            "p50 {p50:.2} ms, p99 {p99:.2} ms, longest {longest:.2} ms"
        )
    }
}

/// A number of `/proc/PID/status`, in KiB.
fn memory(relay: &mut Relay, key: &str) -> u64 {
    let path = format!("/proc/{}/status", relay.process().pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_matches([':', ' ', '\t', 'k', 'B'])
        .trim()
        .parse()
        .unwrap()
}

/// The peak of memory is counted from now on.
fn forget_peak(relay: &mut Relay) {
    // See proc_pid_clear_refs(5).
    std::fs::write(format!("/proc/{}/clear_refs", relay.process().pid()), "5").unwrap();
}

/// An attack, and how the others fare.
struct Outcome {
    measured: Measured,
    peak_kib: u64,
    /// What the attackers did.
    tally: serde_json::Value,
}

async fn attack(
    dir: &Path,
    relay: &mut Relay,
    behaved: &mut Behaved,
    (name, connections): (&str, u32),
    time: Duration,
) -> Outcome {
    forget_peak(relay);
    let mut command = Command::new("chrt");
    command
        .args([
            "--idle",
            "0",
            env!("CARGO_BIN_EXE_millstream-hostile"),
            name,
            "--relay",
            relay.authority(),
            "--connections",
            &connections.to_string(),
        ])
        .stdin(Stdio::piped());
    let mut attackers = Process::start(name, &dir.join("logs"), &mut command);
    let measured = behaved.measure(time).await;
    assert!(attackers.ended().is_none(), "the attack goes on to the end");
    drop(attackers.take_stdin());
    let finished = attackers.finish().await;
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    Outcome {
        measured,
        peak_kib: memory(relay, "VmHWM"),
        tally: serde_json::from_str(&finished.text()).unwrap(),
    }
}

/// Connections, and what must be seen of each attack.
const ATTACKS: [(&str, u32, u32); 6] = [
    ("silent", 1500, 10_000),
    ("dribble", 150, 600),
    ("reset", 4, 8),
    ("stuck", 10, 100),
    ("regex", 6, 12),
    ("bombs", 6, 12),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_behaves_gets_every_line_and_memory_is_bounded_whatever_others_do() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--handshake-timeout-secs=1",
        "--request-timeout-secs=1",
        "--write-timeout-secs=2",
        "--max-given-up-calls-per-second=100",
        "--max-searches-per-caller=1",
    ];
    let mut relay = Relay::start_with(dir.path(), &dir.path().join("relay"), &flags).await;
    store(&relay, 8 << 20).await;
    let mut behaved = Behaved::start(&relay).await;
    for (name, connections, _) in ATTACKS {
        let time = Duration::from_secs(4);
        let outcome = attack(dir.path(), &mut relay, &mut behaved, (name, connections), time).await;
        let count = |key: &str| outcome.tally[key].as_u64().unwrap();
        let told = format!(
            "{name}: {}, {} KiB, {}",
            outcome.measured, outcome.peak_kib, outcome.tally
        );
        println!("{told}");
        assert!(outcome.peak_kib < 256 << 10, "memory is bounded: {told}");
        match name {
            // Those who say nothing, say it too slowly, or give up what they begin are closed.
            "silent" | "reset" => assert!(count("closed") > 0, "{told}"),
            "dribble" => assert!(count("refused") > 0, "{told}"),
            "regex" | "bombs" => assert!(count("refused") > 0, "{told}"),
            _ => assert!(count("done") > 0, "{told}"),
        }
    }
    assert_eq!(relay.get("/healthz").await.0, 200);
}

/// Quiet and attacked times take turns, so that what else goes on in the machine's host falls on both.
const ROUNDS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures for some minutes, on a machine that does nothing else; prints the table of docs/benchmarks.md"]
async fn measure_what_misbehaviour_costs_who_behaves() {
    let dir = tempfile::tempdir().unwrap();
    // The limits are the defaults.
    let mut relay = Relay::start(dir.path()).await;
    store(&relay, 64 << 20).await;
    let mut stalls = Stalls::watch(env!("CARGO_BIN_EXE_millstream-stalls"), &dir.path().join("logs"));
    let mut behaved = Behaved::start(&relay).await;
    println!("memory before: {} MiB", memory(&mut relay, "VmRSS") >> 10);
    println!(
        "| attack | connections | p99 quiet, ms | p50, ms | p99, ms | p99 / quiet | of each round | left out, %, quiet / attacked | \
         p99 with all, ms, quiet / attacked | longest, ms | peak memory, MiB | opened | closed | done | refused |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let cores = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    // What the processors' being busy costs by itself, for comparison.
    let measured = std::iter::once(("compute", 0, cores)).chain(ATTACKS);
    for (name, _, connections) in measured {
        let (mut all_quiet, mut all_attacked) = (Measured::default(), Measured::default());
        let (mut ratios, mut peak_kib, mut tallies) = (Vec::new(), 0, [0; 4]);
        for _ in 0..ROUNDS {
            let before = behaved.measure(Duration::from_secs(10)).await;
            let time = Duration::from_secs(20);
            let outcome = attack(dir.path(), &mut relay, &mut behaved, (name, connections), time).await;
            let still = stalls.so_far();
            let ratio = outcome.measured.without(&still).at(990) / before.without(&still).at(990);
            ratios.push(format!("{ratio:.1}"));
            all_quiet = all_quiet.and(before);
            all_attacked = all_attacked.and(outcome.measured);
            peak_kib = outcome.peak_kib.max(peak_kib);
            for (sum, key) in tallies.iter_mut().zip(["opened", "closed", "done", "refused"]) {
                *sum += outcome.tally[key].as_u64().unwrap();
            }
        }
        let [opened, closed, done, refused] = tallies;
        let still = stalls.so_far();
        let (quiet, attacked) = (all_quiet.without(&still), all_attacked.without(&still));
        println!(
            "| {name} | {connections} | {:.2} | {:.2} | {:.2} | {:.1} | {} | {:.1} / {:.1} | {:.2} / {:.2} | {:.2} | {} | \
             {opened} | {closed} | {done} | {refused} |",
            quiet.at(990),
            attacked.at(500),
            attacked.at(990),
            attacked.at(990) / quiet.at(990),
            ratios.join(", "),
            all_quiet.percent_left_out(&quiet),
            all_attacked.percent_left_out(&attacked),
            all_quiet.at(990),
            all_attacked.at(990),
            all_attacked.at(1000),
            peak_kib >> 10,
        );
    }
}
