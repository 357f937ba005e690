//! One stream by range, a page at a time.

use std::sync::Arc;

use millstream_proto::block::OpenBlock;
use millstream_proto::v1;

use crate::client::LogClient;
use crate::error::Error;
use crate::tail::StreamLines;

/// What to read of a stream.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    pub stream_id: u64,
    /// First line wanted.
    pub from_sequence: u64,
    /// First line not wanted; none: up to the head as it is when reading gets there.
    pub to_sequence: Option<u64>,
    pub filter: Option<v1::Filter>,
}

/// Lines of one page.
#[derive(Debug)]
pub struct Page {
    /// In order; may be empty when a filter removed all.
    pub lines: Vec<StreamLines>,
    /// Set when lines of the range are not stored any more.
    pub gap: Option<v1::Gap>,
    /// The stream as it is now.
    pub stream: Arc<v1::Stream>,
}

/// The pages of a range, fetched as they are needed.
#[derive(Debug)]
pub struct Pages {
    client: LogClient,
    address: String,
    options: ReadOptions,
    next_sequence: u64,
    /// The page before brought nothing.
    stalled: bool,
    done: bool,
}

impl Pages {
    pub(crate) fn new(client: LogClient, address: String, options: ReadOptions) -> Self {
        let done = options.to_sequence == Some(0);
        Self {
            client,
            address,
            next_sequence: options.from_sequence,
            options,
            stalled: false,
            done,
        }
    }

    /// The next page, or none at the end of the range. Blocks are checked: nothing is repeated, and
    /// (without a filter) nothing is missing but for what [`Page::gap`] says.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown stream, [`Error::MissingLines`] for a hole, or the call's own.
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        if self.done {
            return Ok(None);
        }
        let stream_id = self.options.stream_id;
        let request = v1::ReadRequest {
            stream_id,
            from: Some(v1::read_request::From::FromSequence(self.next_sequence)),
            to_sequence: self.options.to_sequence.unwrap_or(0),
            max_lines: 0,
            filter: self.options.filter.clone(),
            codecs: vec![v1::Codec::None.into(), v1::Codec::Zstd.into()],
        };
        let response = self.client.read(request).await;
        let response = response
            .map_err(|status| Error::from_status(&status, "reading", &self.address))?
            .into_inner();
        let stream = Arc::new(response.stream.ok_or_else(|| Error::Protocol {
            message: format!("a page of stream {stream_id} does not describe the stream"),
        })?);

        let mut expected = self.next_sequence;
        if let Some(gap) = &response.gap {
            expected = expected.max(gap.next_sequence);
        }
        let filtered = self.options.filter.is_some();
        let mut lines = Vec::with_capacity(response.blocks.len());
        for block in &response.blocks {
            let block = OpenBlock::open(block).map_err(|source| Error::BadBlock { stream_id, source })?;
            let got = block.first_sequence();
            if got < expected || (got > expected && !filtered) {
                return Err(Error::MissingLines {
                    stream_id,
                    expected_sequence: expected,
                    got_sequence: got,
                });
            }
            expected = block.next_sequence();
            lines.push(StreamLines::new(Arc::clone(&stream), block));
        }

        let head = stream.next_sequence;
        let end = self.options.to_sequence.map_or(head, |to| to.min(head));
        if response.next_sequence < expected {
            return Err(Error::Protocol {
                message: format!(
                    "a page of stream {stream_id} ends before its own lines, at {}",
                    response.next_sequence
                ),
            });
        }
        self.done = response.next_sequence >= end;
        // A stream that is written to may have grown after its page was cut; a second empty page is wrong.
        let stalled = !self.done && response.next_sequence <= self.next_sequence;
        if stalled && self.stalled {
            return Err(Error::Protocol {
                message: format!(
                    "two pages of stream {stream_id} at sequence {} are empty",
                    self.next_sequence
                ),
            });
        }
        self.stalled = stalled;
        if !self.done && !filtered && response.next_sequence != expected {
            return Err(Error::MissingLines {
                stream_id,
                expected_sequence: expected,
                got_sequence: response.next_sequence,
            });
        }
        self.next_sequence = response.next_sequence;
        Ok(Some(Page {
            lines,
            gap: response.gap,
            stream,
        }))
    }
}
