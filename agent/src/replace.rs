//! Files that are replaced as a whole: whoever looks sees what was there before or all that is new, and nobody but the
//! agent's user sees any of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Replaces a file. It is there after `kill -9`; a power failure may take it, or leave it empty.
///
/// # Errors
/// When it cannot be written; then the file is as it was.
pub(crate) fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    write_beside(file, content)?;
    std::fs::rename(beside(file), file)
}

/// The same, and it survives a power failure once this returns.
///
/// # Errors
/// As [`replace`]; where only the last step fails, the file is new but may be the old one after a power failure.
pub(crate) fn replace_durably(file: &Path, content: &[u8]) -> io::Result<()> {
    write_beside(file, content)?.sync_all()?;
    std::fs::rename(beside(file), file)?;
    // The name is in the directory, which is synced like a file.
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_beside(file: &Path, content: &[u8]) -> io::Result<File> {
    let mut new = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(beside(file))?;
    new.write_all(content)?;
    Ok(new)
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.json");
        for (content, write) in [
            (
                "a longer content\n",
                replace as fn(&Path, &[u8]) -> io::Result<()>,
            ),
            ("short", replace_durably),
        ] {
            write(&file, content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
        }
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.json");
        replace(&file, b"old").unwrap();
        std::fs::create_dir(beside(&file)).unwrap();
        assert!(replace(&file, b"new").is_err());
        assert!(replace_durably(&file, b"new").is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"old");
    }
}
