//! Earlier generations of a path: which files beside it had its name once, and in which order.
//!
//! Rotation renames. A file that had the name `app.log` is found as `app.log.1`, `app.log-20261124`,
//! `app.log.old` or `app-20261124.log` beside it (and beside the target, where the path is a symbolic link).
//! Generations are ordered by when they were created, which renaming does not change; where the file system
//! does not tell, by when they were last written. Equal times are told apart by the names: higher numbers and
//! earlier dates are older.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::identity::{Identity, born_unix_ns, modified_unix_ns};
use super::open::open_regular;

/// Place of a generation among its siblings; the least is the oldest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    unix_ns: i64,
    rank: Rank,
}

/// What a name says of the age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Marked by a date, or by a word.
    Dated(Vec<u8>),
    Numbered(Reverse<u32>),
    /// The path itself.
    Current,
}

/// How often the directory is read until two looks in a row show the same.
const LOOKS: usize = 8;

/// Highest number that counts rotations; a longer one is a date.
const MAX_COUNTER: u32 = 9999;

/// Where a mark of rotation may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// Behind the name: `app.log.1`.
    Last,
    /// Also before the extension: `app-20261124.log`.
    LastOrBeforeExtension,
}

/// The rank of `name` when it is `base` itself or `base` with a mark of rotation.
fn rank(base: &[u8], name: &[u8], marks: Marks) -> Option<Rank> {
    if base == name {
        return Some(Rank::Current);
    }
    let mark = name.strip_prefix(base).and_then(separated).or_else(|| {
        let (stem, extension) = split_extension(base).filter(|_| marks == Marks::LastOrBeforeExtension)?;
        separated(name.strip_prefix(stem)?.strip_suffix(extension)?)
    })?;
    let words: [&[u8]; 4] = [b"old", b"bak", b"prev", b"previous"];
    if words.contains(&mark) {
        return Some(Rank::Dated(Vec::new()));
    }
    let is_mark = mark.iter().any(u8::is_ascii_digit)
        && mark
            .iter()
            .all(|byte| byte.is_ascii_digit() || b"-_.:TZ+".contains(byte));
    let counter = || std::str::from_utf8(mark).ok()?.parse::<u32>().ok();
    match counter().filter(|number| *number <= MAX_COUNTER) {
        Some(number) => Some(Rank::Numbered(Reverse(number))),
        None => is_mark.then(|| Rank::Dated(mark.to_vec())),
    }
}

fn separated(mark: &[u8]) -> Option<&[u8]> {
    match mark {
        [b'.' | b'-' | b'_', mark @ ..] if !mark.is_empty() => Some(mark),
        _ => None,
    }
}

/// Stem and extension, the latter with its dot.
fn split_extension(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = memchr::memrchr(b'.', name).filter(|dot| *dot > 0)?;
    Some(name.split_at(dot))
}

/// `path` looks like an earlier generation of `of`: its name is the other's name and a mark of rotation.
pub(super) fn is_rotated_name(path: &Path, of: &Path) -> bool {
    let (Some(name), Some(base)) = (path.file_name(), of.file_name()) else {
        return false;
    };
    path.parent() == of.parent()
        && name.len() > base.len()
        && name.as_bytes().starts_with(base.as_bytes())
        && rank(base.as_bytes(), name.as_bytes(), Marks::Last).is_some()
}

/// Every name of which this one may be an earlier generation.
pub(super) fn base_names(path: &Path) -> impl Iterator<Item = PathBuf> + '_ {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let ends = (1..name.len()).filter(|end| matches!(name[*end], b'.' | b'-' | b'_'));
    ends.map(|end| path.with_file_name(OsStr::from_bytes(&name[..end])))
}

/// A file beside the path.
struct Sibling {
    path: PathBuf,
    metadata: Metadata,
    rank: Rank,
}

/// What stands between two generations.
#[derive(Debug, Default)]
pub(super) struct Between {
    /// Oldest first.
    pub(super) generations: Vec<File>,
    /// What has to be said in the stream of files that are not among them although they may be.
    pub(super) skipped: Vec<String>,
}

/// A path and what its earlier generations are called.
#[derive(Debug)]
pub(super) struct Lineage {
    path: PathBuf,
    marks: Marks,
}

impl Lineage {
    pub(super) fn new(path: PathBuf, marks: Marks) -> Self {
        Self { path, marks }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Files in the path's directory that are or may be generations of it, by path.
    fn siblings(&self) -> Vec<Sibling> {
        let marks = self.marks;
        let mut siblings: Vec<Sibling> = places(&self.path)
            .into_iter()
            .flat_map(|place| {
                let base = place.file_name().unwrap_or_default().as_bytes().to_vec();
                entries(&place).filter_map(move |entry| {
                    let rank = rank(&base, entry.file_name().as_bytes(), marks)?;
                    let metadata = entry.metadata().ok().filter(Metadata::is_file)?;
                    Some(Sibling {
                        path: entry.path(),
                        metadata,
                        rank,
                    })
                })
            })
            .collect();
        siblings.sort_by(|left, right| left.path.cmp(&right.path));
        siblings.dedup_by(|left, right| left.path == right.path);
        siblings
    }

    /// The file that a checkpoint names, under whatever name beside the path.
    pub(super) fn find(&self, checkpoint: &Checkpoint) -> Option<File> {
        places(&self.path).iter().find_map(|place| {
            entries(place)
                .filter(|entry| entry.ino() == checkpoint.identity.inode)
                .find_map(|entry| {
                    let file = open_regular(&entry.path()).ok()?;
                    let found = checkpoint.identity.matches(&file).ok()?
                        && file.metadata().ok()?.len() >= checkpoint.offset;
                    found.then_some(file)
                })
        })
    }

    /// A copy of the file that a checkpoint names, made before that file was truncated: it was made later, begins
    /// as that did, and has the same bytes before the checkpoint's offset. The youngest, when there are several.
    pub(super) fn find_copy(&self, checkpoint: &Checkpoint) -> Option<File> {
        let Checkpoint {
            identity,
            offset,
            trail,
            ..
        } = checkpoint;
        if *offset == 0 {
            return None;
        }
        let mut candidates = self.siblings();
        candidates.retain(|sibling| {
            sibling.metadata.len() >= *offset
                && !identity.is_of(&sibling.metadata)
                && born_unix_ns(&sibling.metadata) >= identity.born_unix_ns
        });
        candidates.sort_by_key(|sibling| Reverse(modified_unix_ns(&sibling.metadata)));
        candidates.into_iter().find_map(|sibling| {
            let file = open_regular(&sibling.path).ok()?;
            let is_copy =
                identity.fingerprint.still_holds(&file).ok()? && trail.still_holds(&file, *offset).ok()?;
            is_copy.then_some(file)
        })
    }

    /// Every file that had the path after `last` and before `current`, which has it now. `last` may be gone.
    /// `None` while files are being renamed: their order cannot be told then.
    pub(super) fn between(&self, last: &Identity, current: &Metadata) -> Option<Between> {
        for _ in 0..LOOKS {
            let siblings = self.siblings();
            let between = between(siblings.as_slice(), last, current);
            let is_current = std::fs::metadata(&self.path)
                .is_ok_and(|metadata| Identity::without_content(current).is_of(&metadata));
            if !is_current {
                return None;
            }
            if self
                .siblings()
                .iter()
                .map(Sibling::place)
                .eq(siblings.iter().map(Sibling::place))
            {
                return Some(between);
            }
        }
        None
    }
}

impl Sibling {
    fn place(&self) -> (&Path, u64, u64) {
        (&self.path, self.metadata.dev(), self.metadata.ino())
    }
}

/// As [`Lineage::between`], of what was seen at one look.
fn between(siblings: &[Sibling], last: &Identity, current: &Metadata) -> Between {
    let by_birth = last.born_unix_ns != 0 && born_unix_ns(current) != 0;
    let age = |metadata: &Metadata, rank: &Rank| Age {
        unix_ns: match by_birth {
            true => born_unix_ns(metadata),
            false => modified_unix_ns(metadata),
        },
        rank: rank.clone(),
    };
    let last_sibling = siblings.iter().find(|sibling| last.is_of(&sibling.metadata));
    let after = match last_sibling {
        Some(sibling) => age(&sibling.metadata, &sibling.rank),
        // Made in the same instant as the one that is gone: taken for older, below.
        None if by_birth => Age {
            unix_ns: last.born_unix_ns,
            rank: Rank::Current,
        },
        // Nothing tells older files from younger ones.
        None => return Between::default(),
    };
    let before = age(current, &Rank::Current);
    let last_write = last_sibling.map_or(last.written_unix_ns, |sibling| {
        modified_unix_ns(&sibling.metadata)
    });
    let current = Identity::without_content(current);
    let mut found: Vec<(Age, &Sibling)> = siblings
        .iter()
        .map(|sibling| (age(&sibling.metadata, &sibling.rank), sibling))
        .filter(|(age, _)| *age > after && *age < before)
        .filter(|(_, sibling)| !last.is_of(&sibling.metadata) && !current.is_of(&sibling.metadata))
        .collect();
    found.sort_by(|left, right| left.0.cmp(&right.0));
    // A file may have two names.
    found.dedup_by_key(|(_, sibling)| (sibling.metadata.dev(), sibling.metadata.ino()));
    let mut between = Between::default();
    if last_sibling.is_none() {
        let same_instant = |sibling: &&Sibling| born_unix_ns(&sibling.metadata) == last.born_unix_ns;
        between.skipped.extend(siblings.iter().filter(same_instant).map(|sibling| {
            format!(
                "gap: {} is not read: it was made in the same instant as the file that was read last and is gone, \
                 and is taken for an older one",
                sibling.path.display()
            )
        }));
    }
    for (_, sibling) in found {
        let path = sibling.path.display();
        // A later generation is written later.
        if modified_unix_ns(&sibling.metadata) < last_write {
            between.skipped.push(format!(
                "gap: {path} is not read: it was made after the file that was read last, but written before it, \
                 so it is taken for a copy"
            ));
            continue;
        }
        match open_regular(&sibling.path) {
            Ok(file) => between.generations.push(file),
            Err(error) => between
                .skipped
                .push(format!("gap: {path}, a rotated file, cannot be read: {error}")),
        }
    }
    between
}

/// The path, and where a symbolic link leads.
fn places(path: &Path) -> Vec<PathBuf> {
    let mut places = vec![path.to_path_buf()];
    places.extend(path.canonicalize().ok().filter(|target| target != path));
    places
}

fn entries(place: &Path) -> impl Iterator<Item = std::fs::DirEntry> + use<> {
    let directory = place
        .parent()
        .and_then(|directory| std::fs::read_dir(directory).ok());
    directory.into_iter().flatten().filter_map(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked<'a>(base: &str, names: &[&'a str]) -> Vec<&'a str> {
        let mut ranked: Vec<(Rank, &str)> = names
            .iter()
            .filter_map(|name| {
                Some((
                    rank(base.as_bytes(), name.as_bytes(), Marks::LastOrBeforeExtension)?,
                    *name,
                ))
            })
            .collect();
        ranked.sort();
        ranked.into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn higher_numbers_and_earlier_dates_are_older() {
        assert_eq!(
            ranked("a.log", &["a.log", "a.log.1", "a.log.10", "a.log.2"]),
            ["a.log.10", "a.log.2", "a.log.1", "a.log"]
        );
        assert_eq!(
            ranked(
                "a.log",
                &["a.log-20261124", "a.log", "a.log-20261123", "a-20261122.log"]
            ),
            ["a-20261122.log", "a.log-20261123", "a.log-20261124", "a.log"]
        );
    }

    #[test]
    fn other_names_are_no_generations() {
        for other in [
            "b.log",
            "a.log.gz",
            "a.log.1.gz",
            "a.logs",
            "a.log.error",
            "a.log.",
            "a2.log",
            "a-b.log",
        ] {
            let rank = rank(b"a.log", other.as_bytes(), Marks::LastOrBeforeExtension);
            assert_eq!(rank, None, "{other}");
        }
        assert!(is_rotated_name(Path::new("/x/a.log.1"), Path::new("/x/a.log")));
        assert!(!is_rotated_name(Path::new("/x/a-1.log"), Path::new("/x/a.log")));
        assert!(!is_rotated_name(Path::new("/y/a.log.1"), Path::new("/x/a.log")));
    }
}
