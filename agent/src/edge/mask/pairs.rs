//! A set of pairs of bytes.

/// One bit for each pair.
#[derive(Debug, Clone)]
pub(super) struct Pairs(Box<[u64; 1024]>);

impl Default for Pairs {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl Pairs {
    pub(super) fn insert(&mut self, first: u8, second: u8) {
        let place = place(first, second);
        self.0[place / 64] |= 1 << (place % 64);
    }

    pub(super) fn has(&self, first: u8, second: u8) -> bool {
        let place = place(first, second);
        self.0[place / 64] & (1 << (place % 64)) != 0
    }
}

fn place(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}
