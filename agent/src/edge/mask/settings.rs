//! What is configured to be masked, read once; and the values that builds ask to mask, kept over restarts.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::Glob;
use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::scan::Scanner;
use super::secrets::{MAX_SECRET_BYTES, MIN_SECRET_BYTES, Refused, Secrets, values};
use crate::replace::replace;

const MAX_PATTERNS: usize = 64;
const PATTERN_BYTES: usize = 1 << 20;

/// `[mask]` of the configuration, for all sources or for one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskRules {
    /// Names of environment variables whose values are secrets; globs.
    #[serde(default)]
    pub env: Vec<String>,
    /// Files whose contents are secrets; globs.
    #[serde(default)]
    pub files: Vec<String>,
    /// Regular expressions; what matches, within one line, is a secret.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// Obey `::add-mask::` and `##vso[task.setsecret]`; yes, unless it is false here or for all sources.
    pub commands: Option<bool>,
}

impl MaskRules {
    /// Both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let join = |ours: &[String], theirs: &[String]| ours.iter().chain(theirs).cloned().collect();
        Self {
            env: join(&self.env, &other.env),
            files: join(&self.files, &other.files),
            patterns: join(&self.patterns, &other.patterns),
            commands: other.commands.or(self.commands),
        }
    }
}

/// Masks, ready to be used by any number of streams.
#[derive(Debug)]
pub struct MaskSettings {
    pub(super) values: BTreeSet<Vec<u8>>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) obeys_commands: bool,
    /// Where streams' own values are kept; `None`: nowhere.
    directory: Option<PathBuf>,
}

impl MaskSettings {
    /// Reads what the rules name. `environment` gives the variables to look through. Values that are too short are
    /// refused; the second result says which, never what they are.
    ///
    /// # Errors
    /// A glob or a pattern that is none, or a file that cannot be read.
    pub fn new(
        rules: &MaskRules,
        environment: &[(String, String)],
        directory: Option<PathBuf>,
    ) -> Result<(Self, Vec<String>), String> {
        let (mut all, mut warnings) = (BTreeSet::new(), Vec::new());
        let mut add = |what: String, value: &[u8]| match values(value) {
            Ok(values) => all.extend(values),
            Err(Refused::TooShort) => warnings.push(format!(
                "the value of {what} has fewer than {MIN_SECRET_BYTES} bytes and is not masked"
            )),
            Err(Refused::TooLong) => warnings.push(format!(
                "the value of {what} has more than {MAX_SECRET_BYTES} bytes and is not masked"
            )),
        };
        for name in &rules.env {
            let glob = Glob::new(name)
                .map_err(|error| format!("env: {error}"))?
                .compile_matcher();
            for (name, value) in environment.iter().filter(|(name, _)| glob.is_match(name)) {
                add(format!("the environment variable {name}"), value.as_bytes());
            }
        }
        for pattern in &rules.files {
            for path in files(pattern).map_err(|problem| format!("files: {pattern}: {problem}"))? {
                // One that disappears or may not be read must not lead to text that goes out unmasked.
                let value =
                    std::fs::read(&path).map_err(|error| format!("files: {}: {error}", path.display()))?;
                add(format!("the file {}", path.display()), &value);
            }
        }
        if rules.patterns.len() > MAX_PATTERNS {
            return Err(format!(
                "patterns: {}; the limit is {MAX_PATTERNS}",
                rules.patterns.len()
            ));
        }
        let patterns: Result<Vec<Regex>, String> = rules
            .patterns
            .iter()
            .map(|pattern| {
                RegexBuilder::new(pattern)
                    .size_limit(PATTERN_BYTES)
                    .dfa_size_limit(PATTERN_BYTES)
                    .build()
                    .map_err(|error| format!("patterns: {error}"))
            })
            .collect();
        let settings = Self {
            secrets: Arc::new(Secrets::new(&all, patterns?)),
            values: all,
            obeys_commands: rules.commands.unwrap_or(true),
            directory,
        };
        Ok((settings, warnings))
    }

    /// Nothing is masked, and nothing can come to be.
    pub(crate) fn is_idle(&self) -> bool {
        self.secrets.is_empty() && !self.obeys_commands
    }

    /// Masks a text that is told whole.
    pub(crate) fn mask(&self, text: &mut String) {
        if !self.secrets.is_empty() {
            let scanner = Scanner::new(Arc::clone(&self.secrets), false);
            let scan = scanner.scan(text.as_bytes(), true, 0, true, true);
            let masked = scan.masked(text.as_bytes(), 0..text.len());
            *text = String::from_utf8_lossy(&masked).into_owned();
        }
    }

    /// The values that a stream asked to mask before the agent's last end.
    pub(super) fn load(&self, key: &str) -> BTreeSet<Vec<u8>> {
        let Some(file) = self.file(key) else {
            return BTreeSet::new();
        };
        match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_or_else(
                |error| {
                    warn!(
                        "{} is damaged: {error}; what it held is not masked",
                        file.display()
                    );
                    BTreeSet::new()
                },
                |own: Own| own.values,
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                warn!(
                    "cannot read {}: {error}; what it holds is not masked",
                    file.display()
                );
                BTreeSet::new()
            }
        }
    }

    pub(super) fn keep(&self, key: &str, values: &BTreeSet<Vec<u8>>) {
        if let Some(file) = self.file(key)
            && let Err(error) = keep(&file, values)
        {
            warn!(
                "cannot write {}: {error}; after a restart of the agent, values that a build asked to mask are not \
                 masked any more",
                file.display()
            );
        }
    }

    pub(super) fn forget(&self, key: &str) {
        if let Some(file) = self.file(key)
            && let Err(error) = std::fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!("cannot remove {}: {error}", file.display());
        }
    }

    fn file(&self, key: &str) -> Option<PathBuf> {
        let name = format!("{:016x}.json", xxhash_rust::xxh3::xxh3_64(key.as_bytes()));
        self.directory.as_ref().map(|directory| directory.join(name))
    }
}

#[derive(Deserialize, Serialize)]
struct Own {
    values: BTreeSet<Vec<u8>>,
}

/// For the agent's user only, whole or not at all.
fn keep(file: &Path, values: &BTreeSet<Vec<u8>>) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let own = Own {
        values: values.clone(),
    };
    replace(file, &serde_json::to_vec(&own)?)
}

/// Files of a path whose last part may be a glob.
fn files(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = Path::new(pattern);
    let is_glob = pattern.contains(['*', '?', '[', '{']);
    if !is_glob {
        return Ok(vec![path.to_path_buf()]);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err("it names no file".to_owned());
    };
    if directory.to_string_lossy().contains(['*', '?', '[', '{']) {
        return Err("only the last part of a path may be a glob".to_owned());
    }
    let glob = Glob::new(name)
        .map_err(|error| error.to_string())?
        .compile_matcher();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        if glob.is_match(entry.file_name()) && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
