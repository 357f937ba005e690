//! What masking costs: the same file through the agent's own file source, edge and outbox, compressed as the uplink
//! does it, into blocks that are acknowledged at once. `cargo xtask bench masking` runs it.
//!
//! `masking_cost FILE ROUNDS` prints a table; runs with and without masks take turns, so that what else the machine
//! does falls on both.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use millstream_agent::config::Settings;
use millstream_agent::config::cli::GlobalArgs;
use millstream_agent::control::commands::Commands;
use millstream_agent::control::{AllowList, Desk, Masks};
use millstream_agent::health::HealthBoard;
use millstream_agent::outbox::{Action, Limits, Outbox};
use millstream_agent::runs::Runs;
use millstream_agent::sources::{self, SourceContext};
use millstream_proto::block::Compressor;
use millstream_proto::v1::{self, push_request::Message};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

/// Values as they are in real life, of the kinds that CI systems hand to builds.
const SECRETS: [&str; 8] = [
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzzqgy",
    "hunter2!",
    "correct horse battery staple",
    "npm_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
    "p@ssw0rd/with?odd&characters",
];

struct Kind {
    name: &'static str,
    config: String,
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(rounds)) = (arguments.next(), arguments.next()) else {
        return Err("usage: masking_cost FILE ROUNDS".into());
    };
    let rounds: usize = rounds.parse()?;
    let bytes = std::fs::metadata(&file)?.len();
    let dir = tempfile::tempdir()?;
    let mut names = Vec::new();
    for (number, secret) in SECRETS.iter().enumerate() {
        let path = dir.path().join(format!("secret-{number}"));
        std::fs::write(&path, secret)?;
        names.push(path.display().to_string());
    }
    let source = format!("[sources.bench]\nplugin = \"file\"\npaths = [{file:?}]\n");
    let kinds = [
        Kind {
            name: "nothing",
            config: format!("[mask]\ncommands = false\n{source}"),
        },
        Kind {
            name: "`::add-mask::` and the like are obeyed (the default)",
            config: source.clone(),
        },
        Kind {
            name: "the same, and 4 secrets in all their forms",
            config: format!("[mask]\nfiles = {:?}\n{source}", &names[..4]),
        },
        Kind {
            name: "the same, and 8 secrets in all their forms",
            config: format!("[mask]\nfiles = {names:?}\n{source}"),
        },
        Kind {
            name: "8 secrets, and 2 patterns",
            config: format!(
                "[mask]\nfiles = {names:?}\npatterns = ['ghp_[A-Za-z0-9]{{36}}', 'AKIA[0-9A-Z]{{16}}']\n{source}"
            ),
        },
        Kind {
            name: "8 secrets; records joined by their indent, 1 pattern dropped",
            config: format!(
                "[mask]\nfiles = {names:?}\n{source}join = {{ indent = true }}\ndrop = [{{ pattern = 'healthz' }}]\n"
            ),
        },
        Kind {
            name: "nothing; `severity = \"auto\"`",
            config: format!("[mask]\ncommands = false\n{source}severity = \"auto\"\n"),
        },
    ];
    for compress in [true, false] {
        let mut seconds = vec![Vec::new(); kinds.len()];
        let mut cpu = vec![Vec::new(); kinds.len()];
        for _ in 0..rounds {
            for (index, kind) in kinds.iter().enumerate() {
                let (cpu_before, began) = (cpu_seconds(), Instant::now());
                one(dir.path(), &kind.config, bytes, compress)?;
                seconds[index].push(began.elapsed().as_secs_f64());
                cpu[index].push(cpu_seconds() - cpu_before);
            }
        }
        let how = if compress {
            "compressed, as the agent sends them"
        } else {
            "not compressed"
        };
        println!("Blocks {how}; medians of {rounds} rounds that took turns:\n");
        println!("| masked | MiB/s | ÷ nothing | CPU-s/GiB | ÷ nothing |\n|---|---:|---:|---:|---:|");
        let (base, base_cpu) = (median(&seconds[0]), median(&cpu[0]));
        for (index, kind) in kinds.iter().enumerate() {
            let (time, cpu) = (median(&seconds[index]), median(&cpu[index]));
            println!(
                "| {} | {:.0} | {:.2} | {:.2} | {:.2} |",
                kind.name,
                bytes as f64 / f64::from(1 << 20) / time,
                base / time,
                cpu / (bytes as f64 / f64::from(1 << 30)),
                cpu / base_cpu,
            );
        }
        println!();
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Of this process, all threads; to the nanosecond, as a tick is a good part of what one pass takes.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// One pass over the file.
fn one(dir: &Path, config: &str, bytes: u64, compress: bool) -> Result<(), Failure> {
    let path = dir.join("agent.toml");
    std::fs::write(&path, config)?;
    let data_dir = dir.join("data");
    let mut settings = Settings::load(&GlobalArgs {
        config: Some(path),
        data_dir: Some(data_dir.clone()),
        ..GlobalArgs::default()
    })?;
    let source = settings.sources.remove(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let outbox = Outbox::new();
        let context = SourceContext {
            name: source.name,
            labels: BTreeMap::new(),
            outbox: outbox.with_edge(source.edge),
            runs: Runs::open(&data_dir, "/proc/self/exe".into())?,
            desk: Desk::new(AllowList::default(), Commands::open(&data_dir)?, Masks::new()),
            health: HealthBoard::default(),
            stop: CancellationToken::new(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(sources::run(context.clone(), source.kind));
        outbox.session_began();
        acknowledge(&outbox, bytes, compress).await?;
        context.stop.cancel();
        while tasks.join_next().await.is_some() {}
        Ok(())
    })
}

/// The uplink and its relay in one: takes blocks until they hold what the file does. Masked text is shorter, so lines
/// that hold a secret must be few; there are none in the bench's input.
async fn acknowledge(outbox: &Outbox, bytes: u64, compress: bool) -> Result<(), Failure> {
    let mut compressors: JoinSet<_> = JoinSet::new();
    let mut idle = Some(Compressor::new(1));
    let mut taken = 0;
    while taken < bytes {
        let limits = Limits {
            max_in_flight_bytes: 16 << 20,
            compress,
            compressor_free: compressors.is_empty(),
            throttled: false,
        };
        match outbox.next_action(&limits) {
            Action::Send(Message::OpenStream(open)) => outbox.opened(&v1::StreamOpened {
                handle: open.handle,
                stream_id: 1,
                ..v1::StreamOpened::default()
            }),
            Action::Send(Message::Block(push)) => {
                let block = push.block.ok_or("a push without a block")?;
                taken += u64::from(block.text_bytes);
                outbox.acked(&v1::Ack {
                    streams: vec![v1::StreamAck {
                        handle: push.handle,
                        next_sequence: block.first_sequence + u64::from(block.line_count),
                        ended: false,
                    }],
                });
            }
            Action::Send(_) => {}
            Action::Compress(mut job) => {
                let mut compressor = idle.take().ok_or("two blocks are compressed at once")?;
                compressors.spawn_blocking(move || {
                    job.block = compressor.compress(job.block);
                    (compressor, job)
                });
            }
            Action::Wait => {
                let flush = async {
                    match outbox.next_flush() {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = outbox.work() => {}
                    () = flush => outbox.flush_due(tokio::time::Instant::now()),
                    Some(done) = compressors.join_next(), if !compressors.is_empty() => {
                        let (compressor, job) = done?;
                        idle = Some(compressor);
                        outbox.compressed(job);
                    }
                }
            }
        }
    }
    Ok(())
}
