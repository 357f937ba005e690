//! Patterns into paths: expands one component at a time and reads only the directories it has to.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// Directories below a `**` are followed at most this deep, so that a loop of mounts ends.
const MAX_DEPTH: usize = 32;

/// One configured path: literal components and patterns.
#[derive(Debug, Clone)]
pub(in crate::sources) struct PathPattern {
    components: Vec<Part>,
    literal: Option<PathBuf>,
}

#[derive(Debug, Clone)]
enum Part {
    Literal(PathBuf),
    Pattern(GlobMatcher),
    AnyDepth,
}

/// What an expansion found.
#[derive(Debug, Default)]
pub(in crate::sources) struct Expansion {
    pub(in crate::sources) files: BTreeSet<PathBuf>,
    /// Directories whose changes can change the result.
    pub(in crate::sources) directories: BTreeSet<PathBuf>,
}

impl PathPattern {
    /// # Errors
    /// When a component is not a valid glob; the text says what is wrong.
    pub(in crate::sources) fn parse(pattern: &str) -> Result<Self, String> {
        let absolute = std::path::absolute(pattern).map_err(|error| error.to_string())?;
        let mut components = Vec::new();
        for component in absolute.components() {
            let text = component.as_os_str().to_string_lossy();
            let part = match component {
                Component::Normal(_) if text == "**" => Part::AnyDepth,
                Component::Normal(_) if text.contains(['*', '?', '[', '{']) => {
                    let glob = GlobBuilder::new(&text).literal_separator(true).build();
                    Part::Pattern(glob.map_err(|error| error.to_string())?.compile_matcher())
                }
                _ => Part::Literal(PathBuf::from(component.as_os_str())),
            };
            components.push(part);
        }
        let is_literal = components.iter().all(|part| matches!(part, Part::Literal(_)));
        Ok(Self {
            components,
            literal: is_literal.then_some(absolute),
        })
    }

    /// It names one path.
    pub(in crate::sources) fn is_literal(&self) -> bool {
        self.literal.is_some()
    }

    /// It names just this path.
    pub(super) fn names(&self, path: &Path) -> bool {
        self.literal.as_deref() == Some(path)
    }

    /// A literal path is always part of the result, also while nothing is there.
    pub(in crate::sources) fn expand(&self, into: &mut Expansion) {
        if let Some(path) = &self.literal {
            into.directories.extend(path.parent().map(Path::to_path_buf));
            into.files.insert(path.clone());
            return;
        }
        walk(PathBuf::new(), &self.components, 0, into);
    }
}

fn walk(at: PathBuf, parts: &[Part], depth: usize, into: &mut Expansion) {
    let Some((part, rest)) = parts.split_first() else {
        if at.is_file() {
            into.files.insert(at);
        }
        return;
    };
    match part {
        Part::Literal(name) => walk(at.join(name), rest, depth, into),
        Part::Pattern(glob) => {
            for name in entries(&at, into) {
                if glob.is_match(&name) {
                    walk(at.join(name), rest, depth, into);
                }
            }
        }
        Part::AnyDepth => {
            walk(at.clone(), rest, depth, into);
            if depth < MAX_DEPTH {
                for name in entries(&at, into) {
                    let below = at.join(name);
                    // Symbolic links to directories are not followed here: they make loops.
                    if below.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                        walk(below, parts, depth + 1, into);
                    }
                }
            }
        }
    }
}

fn entries(directory: &Path, into: &mut Expansion) -> Vec<std::ffi::OsString> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    into.directories.insert(directory.to_path_buf());
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(pattern: &Path) -> Vec<String> {
        let mut expansion = Expansion::default();
        PathPattern::parse(pattern.to_str().unwrap())
            .unwrap()
            .expand(&mut expansion);
        expansion
            .files
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn patterns_match_names_directories_and_any_depth() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        for name in ["one.log", "two.txt", "a/three.log", "a/b/four.log"] {
            std::fs::write(root.path().join(name), "").unwrap();
        }
        assert_eq!(expand(&root.path().join("*.log")), ["one.log"]);
        assert_eq!(expand(&root.path().join("*/*.log")), ["three.log"]);
        assert_eq!(expand(&root.path().join("{one,two}.*")), ["one.log", "two.txt"]);
        assert_eq!(
            expand(&root.path().join("**/*.log")),
            ["four.log", "three.log", "one.log"]
        );
        assert_eq!(expand(&root.path().join("missing.log")), ["missing.log"]);
        assert!(expand(&root.path().join("missing/*.log")).is_empty());
    }
}
