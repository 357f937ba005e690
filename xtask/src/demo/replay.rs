//! Writes recorded build logs into files at the pace of a build, rotating by rename as logrotate does.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use crate::root;

/// Rotated files that are kept: `NAME.1` to `NAME.3`.
const KEPT: u32 = 3;

/// What to write where, and how.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) file: PathBuf,
    /// Names in `tests/data`, written one after the other, for ever.
    pub(crate) logs: &'static [&'static str],
    /// Lines that stand in the file before anybody follows it.
    pub(crate) head_lines: usize,
    /// Lines after which the file is rotated; `None`: never.
    pub(crate) rotate_lines: Option<usize>,
}

impl Replay {
    /// The recorded lines, with their terminators.
    fn lines(&self) -> Result<Vec<Vec<u8>>> {
        let mut lines = Vec::new();
        for name in self.logs {
            let path = root().join("tests/data").join(name);
            let bytes = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            lines.extend(bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        }
        Ok(lines)
    }

    /// Writes the first lines, so that the file is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn begin(&self) -> Result<()> {
        let head = self
            .lines()?
            .into_iter()
            .take(self.head_lines)
            .collect::<Vec<_>>()
            .concat();
        fs::write(&self.file, head).with_context(|| format!("{} cannot be written", self.file.display()))
    }

    /// Goes on writing until `stop`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) async fn go_on(self, stop: CancellationToken) -> Result<()> {
        let lines = self.lines()?;
        let mut file = append(&self.file)?;
        let mut in_file = self.head_lines;
        let rest = lines.iter().cycle().skip(self.head_lines);
        for (number, line) in rest.enumerate() {
            if stop
                .run_until_cancelled(tokio::time::sleep(pace(number)))
                .await
                .is_none()
            {
                break;
            }
            file.write_all(line)
                .with_context(|| format!("{} cannot be written", self.file.display()))?;
            in_file += 1;
            if self.rotate_lines.is_some_and(|limit| in_file >= limit) {
                rotate(&self.file)?;
                file = append(&self.file)?;
                in_file = 0;
            }
        }
        Ok(())
    }
}

/// The pause before line `number`: a compiler's bursts with short waits in between.
fn pace(number: usize) -> Duration {
    Duration::from_millis(match number % 40 {
        0 => 1_500,
        1..=9 => 250,
        _ => 80,
    })
}

fn append(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("{} cannot be opened", path.display()))
}

/// `NAME` becomes `NAME.1`, which becomes `NAME.2`, and so on.
fn rotate(path: &Path) -> Result<()> {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    for number in (1..KEPT).rev() {
        if numbered(number).exists() {
            fs::rename(numbered(number), numbered(number + 1))?;
        }
    }
    fs::rename(path, numbered(1)).with_context(|| format!("{} cannot be rotated", path.display()))
}
