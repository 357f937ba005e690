//! Standard input as a stream, to its end.

use std::io;
use std::pin::pin;

use bytes::Bytes;
use millstream_proto::v1::{self, Channel};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::lines::{LineSplitter, OPEN_LINE_WAIT};
use crate::outbox::{StreamWriter, WriteError, now_unix_us};

const CHUNK_BYTES: usize = 64 << 10;

/// Why a pipe was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    #[error("cannot read standard input: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Reads to the end and ends the stream.
///
/// # Errors
/// When the input cannot be read or the relay refuses the stream.
pub async fn run(input: impl AsyncRead, writer: &StreamWriter) -> Result<(), PipeError> {
    read_lines(input, writer).await?;
    writer.end(end_of_input());
    Ok(())
}

/// Pushes everything that can be read, an open last line included.
pub(super) async fn read_lines(input: impl AsyncRead, writer: &StreamWriter) -> Result<(), PipeError> {
    let mut input = pin!(input);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut splitter = LineSplitter::default();
    loop {
        let open = splitter.open_bytes() > 0;
        let read = tokio::select! {
            read = input.read(&mut buffer) => read?,
            () = tokio::time::sleep(OPEN_LINE_WAIT), if open => {
                send_open_line(&mut splitter, writer).await?;
                continue;
            }
        };
        if read == 0 {
            break;
        }
        let mut chunk = &buffer[..read];
        while let Some(piece) = splitter.next_piece(&mut chunk) {
            writer.push(&piece, Channel::Stdout, |_| Bytes::new()).await?;
        }
    }
    send_open_line(&mut splitter, writer).await?;
    Ok(())
}

async fn send_open_line(splitter: &mut LineSplitter, writer: &StreamWriter) -> Result<(), WriteError> {
    match splitter.take_open() {
        Some(piece) => writer.push(&piece, Channel::Stdout, |_| Bytes::new()).await,
        None => Ok(()),
    }
}

fn end_of_input() -> v1::StreamEnd {
    v1::StreamEnd {
        reason: v1::EndReason::EndOfInput.into(),
        end_unix_us: now_unix_us(),
        ..v1::StreamEnd::default()
    }
}
