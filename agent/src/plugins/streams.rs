//! The streams of one plugin source: their writers, where each stands, and their names over the agent's restarts.
//!
//! Only names are kept on disk, never positions: those are the relay's. Without the names an agent could not ask
//! the relay for the checkpoints that a plugin has to be started with.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use millstream_proto::v1;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::position::{Position, Tracker};
use crate::outbox::{
    Opened, PROCESS_HOLD_BYTES, RESUMABLE_HOLD_BYTES, StreamSpec, StreamWriter, WriteError, now_unix_us,
};
use crate::replace::replace_durably;
use crate::sources::{SourceContext, SourceError};

/// Streams that one source may have at a time.
pub(super) const MAX_STREAMS: usize = 1000;

/// Names of ended streams that are remembered, and told to the plugin.
const MAX_ENDED: usize = 1000;

/// One stream.
#[derive(Debug)]
pub(super) struct PluginStream {
    pub(super) writer: StreamWriter,
    pub(super) tracker: Tracker,
    resumable: bool,
    /// Lines were pushed since the last notice about a gap.
    pub(super) is_fresh: bool,
}

impl PluginStream {
    /// What goes on after the last line that was taken; empty where nothing can go on.
    pub(super) fn checkpoint(&self) -> Bytes {
        if self.resumable {
            self.tracker.position().encode()
        } else {
            Bytes::new()
        }
    }
}

/// All of them, by the name that the plugin uses; empty for its only one.
#[derive(Debug)]
pub(super) struct Streams {
    context: SourceContext,
    resumable: bool,
    beginning: Position,
    /// Instance of the stream without a name.
    default_instance: String,
    open: BTreeMap<String, PluginStream>,
    names: Names,
    /// Where the names are; only plugins with several streams that can resume need them.
    file: Option<PathBuf>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize, Serialize)]
struct Names {
    source: String,
    open: Vec<String>,
    ended: Vec<String>,
}

/// Why a stream takes no line.
#[derive(Debug)]
pub(super) enum StreamError {
    /// The plugin's fault.
    Bad(String),
    Source(SourceError),
    /// The plugin has to be started again from where the streams stand now.
    Rewound,
}

impl Streams {
    /// `names_dir`: where names are kept between starts of the agent.
    pub(super) fn new(
        context: SourceContext,
        resumable: bool,
        beginning: Position,
        default_instance: String,
        names_dir: Option<&Path>,
    ) -> Self {
        let file = names_dir.map(|directory| {
            // A source's name may hold anything; a hash of it is always a file's name.
            let hash = xxhash_rust::xxh3::xxh3_64(context.name.as_bytes());
            directory.join(format!("{hash:016x}.json"))
        });
        let names = file.as_deref().and_then(read_names).unwrap_or_default();
        Self {
            context,
            resumable,
            beginning,
            default_instance,
            open: BTreeMap::new(),
            names,
            file,
        }
    }

    /// Opens every stream that is known, and waits until the relay has said where they stand.
    pub(super) async fn open_known(&mut self) -> Result<(), SourceError> {
        for name in self.names.open.clone() {
            self.open_stream(&name).await.map_err(|error| match error {
                StreamError::Source(error) => error,
                StreamError::Bad(problem) => SourceError::Setting(problem),
                StreamError::Rewound => {
                    SourceError::Setting("a stream was rewound while it was opened".to_owned())
                }
            })?;
        }
        Ok(())
    }

    /// Opens the stream without a name, which every manifest has.
    pub(super) async fn open_only(&mut self) -> Result<(), SourceError> {
        if !self.names.open.iter().any(String::is_empty) {
            self.names.open.push(String::new());
        }
        self.open_known().await
    }

    /// The stream of that name; it is opened when it is new.
    pub(super) async fn get(&mut self, name: &str) -> Result<&mut PluginStream, StreamError> {
        // Looked up twice, because the borrow checker cannot see that the first is over.
        if !self.open.contains_key(name) {
            if self.names.ended.iter().any(|ended| ended == name) {
                return Err(StreamError::Bad(format!(
                    "stream {name:?} was ended and takes nothing more"
                )));
            }
            if self.open.len() >= MAX_STREAMS {
                return Err(StreamError::Bad(format!(
                    "stream {name:?} would be more than {MAX_STREAMS}; end those that are over"
                )));
            }
            self.names.open.push(name.to_owned());
            self.write_names();
            self.open_stream(name).await?;
            // The relay knew more of it than the plugin was told.
            if self
                .open
                .get(name)
                .is_some_and(|stream| *stream.tracker.position() != self.beginning)
            {
                return Err(StreamError::Rewound);
            }
        }
        self.open
            .get_mut(name)
            .ok_or_else(|| StreamError::Bad(format!("stream {name:?} was ended and takes nothing more")))
    }

    /// No line follows in it, ever.
    pub(super) fn end(&mut self, name: &str) {
        if let Some(stream) = self.open.remove(name) {
            stream.writer.end(end_of_stream());
        }
        self.note_ended(name);
    }

    fn note_ended(&mut self, name: &str) {
        self.names.open.retain(|open| open != name);
        if !self.names.ended.iter().any(|ended| ended == name) {
            self.names.ended.push(name.to_owned());
        }
        if self.names.ended.len() > MAX_ENDED {
            self.names.ended.remove(0);
        }
        self.write_names();
    }

    pub(super) fn is_resumable(&self) -> bool {
        self.resumable
    }

    /// The plugin starts: streams that can resume see some lines again, others begin anew.
    pub(super) fn restart_trackers(&mut self) {
        for stream in self.open.values_mut() {
            if self.resumable {
                stream.tracker.restart();
            } else {
                stream.tracker.begin_anew();
            }
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&String, &mut PluginStream)> {
        self.open.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &PluginStream)> {
        self.open.iter()
    }

    pub(super) fn ended(&self) -> impl Iterator<Item = &str> {
        self.names.ended.iter().map(String::as_str)
    }

    /// Every stream that was ever open has ended.
    pub(super) fn all_ended(&self) -> bool {
        self.open.is_empty() && !self.names.ended.is_empty()
    }

    /// Takes up a position that the relay wants a stream to go back to. True: there was one.
    pub(super) fn rewind_if_asked(&mut self) -> Result<bool, SourceError> {
        let mut rewound = false;
        for stream in self.open.values_mut() {
            match stream.writer.check_now() {
                Ok(()) => {}
                Err(WriteError::Rewound(opened)) => {
                    stream.tracker = Tracker::new(decode(&opened, &self.beginning, &self.context.name));
                    rewound = true;
                }
                Err(WriteError::Refused(reason)) => return Err(SourceError::Refused(reason)),
            }
        }
        Ok(rewound)
    }

    async fn open_stream(&mut self, name: &str) -> Result<(), StreamError> {
        let mut labels = self.context.labels.clone();
        let instance = if name.is_empty() {
            self.default_instance.clone()
        } else {
            labels
                .entry("stream".to_owned())
                .or_insert_with(|| name.to_owned());
            name.to_owned()
        };
        let writer = self.context.outbox.open(StreamSpec {
            source: self.context.name.clone(),
            instance,
            labels,
            run: None,
            path: None,
            resumable: self.resumable,
            outlives: false,
            hold_bytes: if self.resumable {
                RESUMABLE_HOLD_BYTES
            } else {
                PROCESS_HOLD_BYTES
            },
        });
        let position = if self.resumable {
            match writer.opened().await {
                Ok(opened) => decode(&opened, &self.beginning, &self.context.name),
                Err(WriteError::Rewound(opened)) => decode(&opened, &self.beginning, &self.context.name),
                Err(WriteError::Refused(_)) if writer.is_ended() => {
                    // The end was stored and its name was not written down any more.
                    self.note_ended(name);
                    return Ok(());
                }
                Err(WriteError::Refused(reason)) => {
                    return Err(StreamError::Source(SourceError::Refused(reason)));
                }
            }
        } else {
            self.beginning.clone()
        };
        let stream = PluginStream {
            writer,
            tracker: Tracker::new(position),
            resumable: self.resumable,
            is_fresh: false,
        };
        self.open.insert(name.to_owned(), stream);
        Ok(())
    }

    fn write_names(&mut self) {
        let Some(file) = &self.file else {
            return;
        };
        self.names.source.clone_from(&self.context.name);
        if let Err(error) = write_names(file, &self.names) {
            warn!(
                "source {}: cannot write {}: {error}; after a restart its plugin may begin anew in streams that the \
                 agent does not know",
                self.context.name,
                file.display()
            );
        }
    }
}

fn end_of_stream() -> v1::StreamEnd {
    v1::StreamEnd {
        reason: v1::EndReason::EndOfInput.into(),
        end_unix_us: now_unix_us(),
        ..v1::StreamEnd::default()
    }
}

fn decode(opened: &Opened, beginning: &Position, source: &str) -> Position {
    Position::decode(&opened.checkpoint, beginning).unwrap_or_else(|| {
        warn!("source {source}: the checkpoint was written by another version or plugin; beginning anew");
        beginning.clone()
    })
}

fn read_names(file: &Path) -> Option<Names> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            warn!("cannot read {}: {error}", file.display());
            return None;
        }
    };
    serde_json::from_slice(&bytes)
        .inspect_err(|error| warn!("{} is damaged: {error}", file.display()))
        .ok()
}

fn write_names(file: &Path, names: &Names) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let directory = file.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    replace_durably(file, &serde_json::to_vec(names)?)
}
