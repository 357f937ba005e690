//! What a search costs: raw text looked at a second on one thread, through the whole relay (store, decompression,
//! scan, gRPC). Prints a table; takes a minute and about 200 MiB of disk.
//!
//! `cargo run --profile dist -p millstream-relay --example search_speed [LOG] [MIB]`

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use millstream_proto::block::{BlockBuilder, Compressor};
use millstream_proto::v1::{self, Channel, Filter, SearchOrder, SearchRequest, search_response::Message};
use millstream_relay::{Core, CoreOptions};
use millstream_store::{AppendOp, EmbeddedOptions, EmbeddedStore, LogStore, StreamRecord, WriteOp};
use tonic::transport::Server;

const DEFAULT_LOG: &str = "tests/data/cpython-build-1.log";
const NEEDLE: &str = "a needle in a haystack";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| DEFAULT_LOG.to_owned());
    let mib: usize = args.next().map_or(Ok(1024), |text| text.parse())?;
    let log = std::fs::read(&path)?;
    let dir = std::env::temp_dir().join(format!("millstream-search-speed-{}", std::process::id()));
    let result = measure(&dir, &log, mib << 20).await;
    std::fs::remove_dir_all(&dir)?;
    result
}

async fn measure(dir: &std::path::Path, log: &[u8], total_bytes: usize) -> Result<(), Box<dyn Error>> {
    let store = EmbeddedStore::open(dir, EmbeddedOptions::default())?;
    let (lines, bytes) = fill(&store, log, total_bytes)?;
    println!(
        "{lines} lines, {:.0} MiB of text, {:.0} MiB on disk",
        mib(bytes),
        mib(store.disk_bytes())
    );
    let options = CoreOptions {
        search_threads: 1,
        ..CoreOptions::default()
    };
    let core = Core::start(Arc::new(store), options)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let mut server = tokio::task::JoinSet::new();
    let routes = core.routes();
    server.spawn(async move {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        Server::builder()
            .add_routes(routes)
            .serve_with_incoming(incoming)
            .await
    });
    let channel = tonic::transport::Channel::from_shared(url)?.connect().await?;
    let mut client = v1::log_service_client::LogServiceClient::new(channel);
    println!(
        "{:>34} {:>12} {:>9} {:>9} {:>10}",
        "search", "order", "hits", "seconds", "GB/s"
    );
    let substring = |text: &str| Filter {
        substring: text.to_owned(),
        ..Filter::default()
    };
    let regex = |text: &str| Filter {
        regex: text.to_owned(),
        ..Filter::default()
    };
    let searches = [
        ("rare literal", substring(NEEDLE)),
        (
            "rare literal, any case",
            Filter {
                ignore_case: true,
                ..substring(NEEDLE)
            },
        ),
        ("rare regex", regex("need(le|ed) in a hay[a-z]+")),
        ("regex with classes", regex(r"\w+\.c:\d+:\d+: error")),
        ("frequent literal", substring("checking for")),
        (
            "errors",
            Filter {
                severities: vec![v1::Severity::Error.into()],
                ..Filter::default()
            },
        ),
    ];
    for (name, filter) in searches {
        for order in [SearchOrder::NewestFirst, SearchOrder::OldestFirst] {
            let request = SearchRequest {
                filter: Some(filter.clone()),
                order: order.into(),
                count_all: true,
                ..SearchRequest::default()
            };
            // The first time warms caches.
            let mut best = f64::MAX;
            let mut hits = 0;
            for _ in 0..3 {
                let start = Instant::now();
                let mut responses = client.search(request.clone()).await?.into_inner();
                while let Some(response) = responses.message().await? {
                    if let Some(Message::Progress(progress)) = response.message {
                        hits = progress.hits;
                    }
                }
                best = best.min(start.elapsed().as_secs_f64());
            }
            row(name, order.as_str_name(), hits, best, bytes);
        }
    }
    let start = Instant::now();
    let histogram = client
        .histogram(v1::HistogramRequest {
            buckets: 2000,
            ..v1::HistogramRequest::default()
        })
        .await?
        .into_inner();
    let counted = histogram.buckets.iter().map(|bucket| bucket.lines).sum();
    row(
        "histogram by severity",
        "",
        counted,
        start.elapsed().as_secs_f64(),
        bytes,
    );
    core.shutdown().await;
    Ok(())
}

fn row(name: &str, order: &str, hits: u64, seconds: f64, bytes: u64) {
    let order = order.trim_start_matches("SEARCH_ORDER_").to_lowercase();
    println!(
        "{name:>34} {order:>12} {hits:>9} {seconds:>9.3} {:>10.2}",
        bytes as f64 / seconds / 1e9
    );
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The log again and again, each time with a number in its lines so that it does not compress to nothing, in
/// blocks as the store settles them; a single line of the middle is the needle.
fn fill(store: &EmbeddedStore, log: &[u8], total_bytes: usize) -> Result<(u64, u64), Box<dyn Error>> {
    let start_us = 1_700_000_000_000_000;
    store.commit(vec![WriteOp::PutStream(StreamRecord {
        stream_id: 1,
        agent_id: "a".to_owned(),
        source: "bench".to_owned(),
        instance: "bench".to_owned(),
        labels: [("host".to_owned(), "h".to_owned())].into(),
        created_unix_us: start_us,
        first_sequence: 0,
        next_sequence: 0,
        text_bytes: 0,
        last_line_unix_us: 0,
        checkpoint: bytes::Bytes::new(),
        run: None,
        end: None,
    })])?;
    let mut compressor = Compressor::new(3);
    let mut builder = BlockBuilder::new();
    let (mut next, mut text_bytes, mut time, mut has_needle) = (0_u64, 0_u64, start_us, false);
    for round in 0.. {
        for (number, line) in log.split(|byte| *byte == b'\n').enumerate() {
            time += 100;
            let mut line = line.to_vec();
            if number % 5 == 0 {
                line.extend_from_slice(format!(" {round:x}{time:x}").as_bytes());
            }
            if !has_needle && text_bytes > total_bytes as u64 / 2 {
                has_needle = true;
                line = NEEDLE.as_bytes().to_vec();
            }
            if !builder.push_line(&line, time, Channel::Stdout, false) {
                let block = builder.finish(next).ok_or("a full builder is not empty")?;
                next += u64::from(block.line_count);
                text_bytes += u64::from(block.text_bytes);
                store.commit(vec![WriteOp::Append(AppendOp {
                    stream_id: 1,
                    block: compressor.compress(block),
                    checkpoint: bytes::Bytes::new(),
                    last_line_unix_us: time - 100,
                })])?;
                if text_bytes >= total_bytes as u64 {
                    store.sync()?;
                    while store.maintain()? {}
                    return Ok((next, text_bytes));
                }
                builder.push_line(&line, time, Channel::Stdout, false);
            }
        }
    }
    Ok((next, text_bytes))
}
