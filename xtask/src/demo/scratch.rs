//! A scratch folder in which the workspace's own `proto` crate is built again and again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::root;

/// What is added to the crate for the build that fails: a mistake of the kind that everybody makes.
const MISTAKE: &str = "
/// Mean length of a block's lines, in bytes.
pub fn mean_line_bytes(block: &v1::Block) -> u32 {
    let lines = block.line_count as usize;
    block.text.len() / lines
}
";

/// A copy of the `proto` crate as a workspace of its own.
#[derive(Debug, Clone)]
pub(crate) struct Scratch {
    dir: PathBuf,
    source: String,
}

impl Scratch {
    /// Makes the copy below `dir`.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        copy_tree(&root().join("proto"), &dir.join("proto"))?;
        fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).context("Cargo.lock cannot be copied")?;
        fs::write(dir.join("Cargo.toml"), manifest()?)?;
        let source = fs::read_to_string(dir.join("proto/src/lib.rs"))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            source,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the crate new to cargo, with or without the mistake.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn change(&self, mistaken: bool) -> Result<()> {
        let mistake = if mistaken { MISTAKE } else { "" };
        let source = format!("{}{mistake}", self.source);
        fs::write(self.dir.join("proto/src/lib.rs"), source).context("the scratch crate cannot be changed")
    }
}

/// The workspace's manifest with `proto` as the only member.
fn manifest() -> Result<String> {
    let whole =
        fs::read_to_string(root().join("Cargo.toml")).context("the workspace's Cargo.toml cannot be read")?;
    let mut manifest = String::new();
    for line in whole.lines() {
        // The rest is profiles; they name packages that `proto` does not have, of which cargo would warn.
        if line.starts_with("[profile.") {
            break;
        }
        let kept = if line.starts_with("members = ") {
            "members = [\"proto\"]"
        } else if line.starts_with("default-members")
            || (line.contains("path = \"") && !line.contains("\"proto\""))
        {
            continue;
        } else {
            line
        };
        manifest.push_str(kept);
        manifest.push('\n');
    }
    Ok(manifest)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("{} cannot be made", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("{} cannot be copied", entry.path().display()))?;
        }
    }
    Ok(())
}
