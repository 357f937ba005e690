//! Ways to be wrong on purpose. A simulation that does not notice them would not notice a bug either. They live
//! in what the harness puts around the product (its store, its wire, its sources), never in the product.

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The store says that it synced, and did not.
    AcknowledgesBeforeSync,
    /// The store forgets the last commit when its process is killed.
    ForgetsAtKill,
    /// The store keeps a block's lines and loses its checkpoint in a crash.
    LosesCheckpoint,
    /// The store leaves a block out of a page.
    SkipsStoredBlock,
    /// A reader that comes back is served from one line before where it was.
    ResumesEarly,
    /// Or from one line after.
    ResumesLate,
    /// Blocks that come again are stored again.
    StoresReplays,
    /// Acknowledgements are about one line more than was stored.
    AcknowledgesTooMuch,
}

impl Mutant {
    pub const ALL: [Self; 8] = [
        Self::AcknowledgesBeforeSync,
        Self::ForgetsAtKill,
        Self::LosesCheckpoint,
        Self::SkipsStoredBlock,
        Self::ResumesEarly,
        Self::ResumesLate,
        Self::StoresReplays,
        Self::AcknowledgesTooMuch,
    ];
}
