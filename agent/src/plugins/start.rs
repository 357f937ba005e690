//! What a plugin is started with: its command, its environment, and its request.

use super::catalog::Plugin;
use super::protocol;
use super::schema::Values;

/// Everything for one start.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) argv: Vec<String>,
    /// Beside what it inherits.
    pub(super) environment: Vec<(String, String)>,
    /// For its standard input; empty for a manifest's command.
    pub(super) request: Vec<u8>,
}

impl Start {
    /// `positions`: for each stream what to resume it from, where there is something.
    pub(super) fn new<'a>(
        plugin: &Plugin,
        source: &str,
        values: &Values,
        positions: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
        ended: Vec<&str>,
    ) -> Self {
        let mut positions = positions.into_iter();
        match plugin {
            Plugin::Manifest(manifest) => Self {
                argv: manifest.argv(values, positions.next().and_then(|(_, resume)| resume)),
                environment: manifest.environment(values),
                request: Vec::new(),
            },
            Plugin::Protocol(plugin) => {
                let checkpoints = positions.filter_map(|(stream, resume)| Some((stream, resume?)));
                let request = protocol::Request {
                    protocol: protocol::VERSION,
                    source,
                    settings: values,
                    checkpoints: checkpoints.collect(),
                    ended,
                };
                let mut request = serde_json::to_vec(&request).expect("text and numbers are always JSON");
                request.push(b'\n');
                Self {
                    argv: vec![plugin.path.to_string_lossy().into_owned()],
                    environment: Vec::new(),
                    request,
                }
            }
        }
    }
}
