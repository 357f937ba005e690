//! Read Millstream from a Rust program: connect, subscribe, and get every line once and in order,
//! whatever the network and the relay do meanwhile.
//!
//! In the order in which data flows: [`Client`] knows a relay and its lists, [`Subscription`] follows any
//! number of streams from stored history into live and resumes by itself, [`Pages`] reads one stream by
//! range, and [`LineJoiner`] puts lines together that were delivered in pieces. Lines come a block at a
//! time ([`StreamLines`]): iterating one borrows from the block and copies nothing.
//!
//! ```no_run
//! use millstream_client::{Client, Event, Start, TailOptions};
//!
//! # async fn example() -> Result<(), millstream_client::Error> {
//! let client = Client::connect("http://127.0.0.1:7171").await?;
//! let options = TailOptions {
//!     selector: "host=build-*,source=cargo".to_owned(),
//!     start: Start::LastLines(100),
//!     follow: true,
//!     ..TailOptions::default()
//! };
//! let mut subscription = client.tail(options).await?;
//! while let Some(event) = subscription.next().await? {
//!     match event {
//!         Event::Lines(lines) => {
//!             for line in lines.lines() {
//!                 println!("{} {}", line.sequence, String::from_utf8_lossy(line.text));
//!             }
//!         }
//!         Event::Gap { gap, .. } => eprintln!("lines are gone: {}", gap.message),
//!         Event::Reconnecting { reason, .. } => eprintln!("{reason}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod backoff;
mod client;
mod error;
mod join;
mod read;
mod tail;

pub use backoff::Backoff;
pub use client::{Agents, Client, ClientOptions, Connecting, DEFAULT_RELAY_URL, Streams, Watch};
pub use error::Error;
pub use join::{JoinedLine, LineJoiner};
pub use millstream_dial::{Bearer, CredentialFlags, Credentials, DialError, Pin, TokenSource, Trust};
pub use millstream_proto::block::{Line, OpenBlock};
pub use millstream_proto::v1;
pub use read::{Page, Pages, ReadOptions};
pub use tail::{Event, OwnedLine, ResumePoint, Start, StreamLines, Subscription, TailOptions};
