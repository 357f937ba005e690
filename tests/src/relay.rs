//! A relay under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use millstream_proto::v1::log_service_client::LogServiceClient;
use millstream_proto::v1::{ListStreamsRequest, Stream};
use rustix::process::Signal;
use tonic::transport::{Channel, Endpoint};

use crate::binaries::binary;
use crate::process::{Finished, Process};
use crate::wait::eventually;

/// What the relay prints once it can be reached.
const READY: &str = "millstream-relay listening on ";

/// One relay with a data directory of its own, on a port of its own that it keeps over restarts.
#[derive(Debug)]
pub struct Relay {
    process: Option<Process>,
    url: String,
    data_dir: PathBuf,
    log_dir: PathBuf,
    /// Flags beyond address and data directory.
    flags: Vec<String>,
}

impl Relay {
    /// Starts a relay on a free port with its data in `dir/relay` and waits until it is ready.
    pub async fn start(dir: &Path) -> Self {
        Self::start_with(dir, &dir.join("relay"), &[]).await
    }

    /// The same with a data directory elsewhere and with more flags.
    pub async fn start_with(dir: &Path, data_dir: &Path, flags: &[&str]) -> Self {
        let data_dir = data_dir.to_owned();
        let log_dir = dir.join("logs");
        let mut command = Self::command("127.0.0.1:0", &data_dir);
        let mut process = Process::start("relay", &log_dir, command.args(flags));
        let url = process.stdout_line(READY).await;
        Self {
            process: Some(process),
            url,
            data_dir,
            log_dir,
            flags: flags.iter().copied().map(str::to_owned).collect(),
        }
    }

    /// The command of a relay, for tests that start one which must fail.
    pub fn command(listen: &str, data_dir: &Path) -> Command {
        let mut command = Command::new(binary("millstream-relay"));
        command
            .args(["--listen", listen, "--data-dir"])
            .arg(data_dir)
            .stdin(Stdio::null());
        command
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        self.url.trim_start_matches("http://").trim_end_matches('/')
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the relay is running")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, and waits for its end.
    pub async fn stop(&mut self) -> Finished {
        let mut process = self.process.take().expect("the relay is running");
        process.signal(Signal::TERM);
        process.finish().await
    }

    /// Starts it again after [`Relay::kill`] or [`Relay::stop`], on the same port and data.
    pub async fn start_again(&mut self) {
        let mut command = Self::command(self.authority(), &self.data_dir);
        let mut process = Process::start("relay", &self.log_dir, command.args(&self.flags));
        process.stdout_line(READY).await;
        self.process = Some(process);
    }

    /// A gRPC connection, made by its first call.
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(self.url.clone())
            .expect("the relay prints its URL")
            .connect_lazy()
    }

    /// A client of the reading service.
    pub fn log_service(&self) -> LogServiceClient<Channel> {
        LogServiceClient::new(self.channel()).max_decoding_message_size(8 << 20)
    }

    /// The streams that `selector` selects, by id.
    pub async fn streams(&self, selector: &str) -> Vec<Stream> {
        let request = ListStreamsRequest {
            selector: selector.into(),
            page_size: 1000,
            ..Default::default()
        };
        let response = self
            .log_service()
            .list_streams(request)
            .await
            .expect("the relay lists its streams");
        let mut streams = response.into_inner().streams;
        streams.sort_by_key(|stream| stream.stream_id);
        streams
    }

    /// Waits until `selector` selects exactly one stream and that satisfies `ready`.
    pub async fn stream(&self, selector: &str, ready: impl Fn(&Stream) -> bool) -> Stream {
        eventually(
            &format!("one stream {selector} in the state that is wanted"),
            async || {
                let mut streams = self.streams(selector).await;
                assert!(
                    streams.len() < 2,
                    "{selector} selects {} streams: {streams:?}",
                    streams.len()
                );
                streams.pop().filter(&ready)
            },
        )
        .await
    }

    /// One plain HTTP GET; status and body.
    pub async fn get(&self, path: &str) -> (u16, Vec<u8>) {
        crate::http::get(self.authority(), path).await
    }

    /// A stream as it is downloaded raw.
    pub async fn raw(&self, stream_id: u64) -> Vec<u8> {
        let (status, body) = self.get(&format!("/api/streams/{stream_id}/raw")).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        body
    }

    /// The same, once it has so many bytes. A stream's `text_bytes` tells less: it counts an end of line for each
    /// piece of a line too.
    pub async fn raw_of(&self, stream_id: u64, bytes: usize) -> Vec<u8> {
        eventually(&format!("stream {stream_id} has {bytes} bytes"), async || {
            let raw = self.raw(stream_id).await;
            (raw.len() >= bytes).then_some(raw)
        })
        .await
    }
}
