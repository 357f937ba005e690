//! Whether a text can hold a secret or a command at all, told by a vectorised glance over the text as it is.
//!
//! Nearly all text holds none, and most of what masking costs would be to make sure of it. A form (a value in one of its
//! encodings, the beginning of whatever a pattern matches, or that of a command) has a piece that is searched for: its
//! needle ([`needles`]). It stands in the text in one stretch, and is found; or something that a terminal does not show
//! lies within it: then the characters on both sides of such a *seam* are neighbours in the needle ([`seams`]). What is
//! found here is only a reason to look closely; what is not found is not there.

mod needles;
mod seams;

use needles::Needles;
use seams::Seams;

/// So much is looked at for everything before more is: it stays in the fastest cache.
const BLOCK_BYTES: usize = 16 << 10;

#[derive(Debug, Clone)]
pub(super) struct Sieve {
    needles: Needles,
    seams: Seams,
}

impl Sieve {
    /// `values`: the forms of each value together. `beginnings`: one of them begins whatever a pattern matches.
    pub(super) fn new(values: &[Vec<Vec<u8>>], beginnings: &[Vec<u8>]) -> Self {
        let alone = beginnings.iter().map(|beginning| vec![beginning.clone()]);
        let groups: Vec<Vec<Vec<u8>>> = values.iter().cloned().chain(alone).collect();
        let (needles, places) = Needles::new(&groups);
        Self {
            needles,
            seams: Seams::new(&places, values.is_empty()),
        }
    }

    /// Something that is searched for may be in the text.
    pub(super) fn finds_any(&self, text: &[u8]) -> bool {
        let mut visible = 0;
        (0..text.len()).step_by(BLOCK_BYTES).any(|start| {
            let block = start..text.len().min(start + BLOCK_BYTES);
            self.needles.are_in(text, block.clone()) || self.seams.are_in(text, block, &mut visible)
        })
    }
}

#[cfg(test)]
mod tests;
