//! Which plugins there are: bundled manifests, and manifests and executables on the plugin path.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tokio::io::AsyncReadExt;

use super::describe::{DESCRIBE_TIMEOUT, MAX_DESCRIPTION_BYTES, PluginDescription};
use super::manifest::{BUNDLED, MAX_MANIFEST_BYTES, Manifest, check_plugin_name};
use super::schema::Schema;
use crate::sources::registry;

/// What the name of a protocol plugin's file begins with.
pub const EXECUTABLE_PREFIX: &str = "millstream-source-";

/// A plugin that is not part of the agent's code.
#[derive(Debug)]
pub enum Plugin {
    Manifest(Box<Manifest>),
    Protocol(ProtocolPlugin),
}

/// An executable that speaks the plugin protocol.
#[derive(Debug)]
pub struct ProtocolPlugin {
    pub name: String,
    pub path: PathBuf,
    description: OnceLock<Result<PluginDescription, String>>,
}

impl ProtocolPlugin {
    #[must_use]
    pub fn new(name: String, path: PathBuf) -> Self {
        Self {
            name,
            path,
            description: OnceLock::new(),
        }
    }

    /// What `--describe` says; it is asked once.
    ///
    /// # Errors
    /// What is wrong with the plugin.
    pub fn description(&self) -> Result<&PluginDescription, String> {
        let ask = || {
            // A thread of its own: this is called with and without a runtime around it.
            let asked =
                std::thread::scope(|scope| scope.spawn(|| describe_blocking(&self.name, &self.path)).join());
            asked.unwrap_or_else(|_| Err("asking it panicked, which is a bug in Millstream".to_owned()))
        };
        self.description
            .get_or_init(ask)
            .as_ref()
            .map_err(|problem| format!("plugin {}: {}: {problem}", self.name, self.path.display()))
    }
}

impl Plugin {
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Manifest(manifest) => &manifest.name,
            Self::Protocol(plugin) => &plugin.name,
        }
    }

    /// Its settings.
    ///
    /// # Errors
    /// When a protocol plugin does not describe itself.
    pub fn settings(&self) -> Result<&Schema, String> {
        match self {
            Self::Manifest(manifest) => Ok(&manifest.settings),
            Self::Protocol(plugin) => plugin.description().map(|description| &description.settings),
        }
    }
}

/// A plugin and where it was found.
#[derive(Debug, Clone)]
pub struct Entry {
    pub plugin: Result<Arc<Plugin>, String>,
    /// Its file; `None` for one that is part of the agent.
    pub path: Option<PathBuf>,
}

/// Every plugin by name. One on the path replaces a bundled one of its name; an earlier directory of the path
/// wins over a later one; the agent's own (`file`, `exec`…) are never replaced.
#[derive(Debug, Default)]
pub struct Catalog {
    pub entries: BTreeMap<String, Entry>,
    /// Files that were left alone, and why.
    pub problems: Vec<String>,
}

impl Catalog {
    /// Looks through the directories of the plugin path. Plugins are looked at here, not started.
    #[must_use]
    pub fn load(plugin_path: &[PathBuf]) -> Self {
        let mut catalog = Self::default();
        for (file, text) in BUNDLED {
            let manifest =
                Manifest::parse(text).map_err(|problem| format!("bundled manifest {file}: {problem}"));
            let name = file.trim_end_matches(".toml").to_owned();
            let plugin = manifest.map(|manifest| Arc::new(Plugin::Manifest(Box::new(manifest))));
            catalog.entries.insert(name, Entry { plugin, path: None });
        }
        for directory in plugin_path.iter().rev() {
            if let Err(error) = catalog.load_directory(directory) {
                catalog
                    .problems
                    .push(format!("plugin path {}: {error}", directory.display()));
            }
        }
        catalog
    }

    fn load_directory(&mut self, directory: &Path) -> io::Result<()> {
        let mut paths = std::fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let name = if let Some(name) = file_name.strip_prefix(EXECUTABLE_PREFIX) {
                name.to_owned()
            } else if let Some(name) = file_name.strip_suffix(".toml") {
                name.to_owned()
            } else {
                continue;
            };
            if registry::plugin(&name).is_some() {
                self.problems.push(format!(
                    "{}: {name} is a plugin of the agent itself and cannot be replaced; choose another name",
                    path.display()
                ));
                continue;
            }
            let plugin = open(&name, &path).map_err(|problem| format!("{}: {problem}", path.display()));
            let entry = Entry {
                plugin: plugin.map(Arc::new),
                path: Some(path),
            };
            self.entries.insert(name, entry);
        }
        Ok(())
    }

    /// The plugin of that name; `None` when there is none, `Err` when it cannot be used.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<Result<Arc<Plugin>, String>> {
        self.entries.get(name).map(|entry| entry.plugin.clone())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }
}

/// Opens one file as the plugin of that name.
///
/// # Errors
/// A sentence on what is wrong with it.
pub fn open(name: &str, path: &Path) -> Result<Plugin, String> {
    check_plugin_name(name)?;
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no file".to_owned());
    }
    let mode = metadata.permissions().mode();
    // What anybody may change, anybody may make the agent run.
    if mode & 0o002 != 0 {
        return Err("everybody may write to it, so it is not trusted; chmod o-w it".to_owned());
    }
    if path.extension().is_some_and(|extension| extension == "toml") {
        if metadata.len() > MAX_MANIFEST_BYTES as u64 {
            return Err(format!(
                "it has {} bytes; the limit is {MAX_MANIFEST_BYTES}",
                metadata.len()
            ));
        }
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let manifest = Manifest::parse(&text)?;
        if manifest.name != name {
            return Err(format!("name is {:?}, but its file says {name:?}", manifest.name));
        }
        return Ok(Plugin::Manifest(Box::new(manifest)));
    }
    if mode & 0o111 == 0 {
        return Err("it is not executable; chmod +x it".to_owned());
    }
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    Ok(Plugin::Protocol(ProtocolPlugin::new(name.to_owned(), path)))
}

fn describe_blocking(name: &str, path: &Path) -> Result<PluginDescription, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(describe(name, path))
}

/// Runs `PATH --describe`, bounded in time and in what it prints.
async fn describe(name: &str, path: &Path) -> Result<PluginDescription, String> {
    let mut command = tokio::process::Command::new(path);
    command
        .arg("--describe")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    super::containment::clean_environment(command.as_std_mut());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            "cannot start it: the file or the program in its first line does not exist".to_owned()
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            "cannot start it: a script has to begin with #!/bin/sh or the like".to_owned()
        }
        _ => format!("cannot start it: {error}"),
    })?;
    let group = crate::sources::process::group_of(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        let limit = MAX_DESCRIPTION_BYTES as u64 + 1;
        let (mut output, mut words) = (Vec::new(), Vec::new());
        let output_read = async {
            match stdout {
                Some(pipe) => pipe.take(limit).read_to_end(&mut output).await.map(drop),
                None => Ok(()),
            }
        };
        let words_read = async {
            match stderr {
                Some(pipe) => pipe.take(4096).read_to_end(&mut words).await.map(drop),
                None => Ok(()),
            }
        };
        let (output_read, words_read) = tokio::join!(output_read, words_read);
        output_read.and(words_read).map_err(|error| error.to_string())?;
        if output.len() > MAX_DESCRIPTION_BYTES {
            return Err(format!(
                "--describe printed more than {MAX_DESCRIPTION_BYTES} bytes"
            ));
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        if !status.success() {
            let words = crate::text::harmless(words.trim_ascii(), 300);
            return Err(format!("--describe failed ({status}): {words}"));
        }
        PluginDescription::parse(name, &output)
    };
    let described = tokio::time::timeout(DESCRIBE_TIMEOUT, read)
        .await
        .unwrap_or_else(|_| {
            Err(format!(
                "--describe did not end within {} s; it prints JSON and exits, whatever is on standard input",
                DESCRIBE_TIMEOUT.as_secs()
            ))
        });
    crate::sources::process::signal_group(group, rustix::process::Signal::KILL);
    described
}
