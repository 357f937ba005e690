//! Where a file stream stands, as the bytes that the relay keeps beside the data.

use bytes::Bytes;

use super::identity::{Fingerprint, Identity, Trail};

const VERSION: u8 = 1;
const ENCODED_BYTES: usize = 61;
const FLAG_LINE_CONTINUES: u8 = 1;

/// Everything before `offset` of the file `identity` is in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) identity: Identity,
    pub(super) offset: u64,
    /// What stands just before `offset`.
    pub(super) trail: Trail,
    /// The last line was sent as partial: the byte at `offset` continues it.
    pub(super) line_continues: bool,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum CheckpointError {
    #[error("checkpoint version {0} was written by a newer agent")]
    Version(u8),
    #[error("checkpoint has {0} bytes instead of {ENCODED_BYTES}")]
    Size(usize),
}

impl Checkpoint {
    /// Version, flags, then device, inode, offset, length and hash of the fingerprint, birth, length and hash of
    /// the trail, last write, little-endian.
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(ENCODED_BYTES);
        bytes.extend([VERSION, u8::from(self.line_continues) * FLAG_LINE_CONTINUES]);
        bytes.extend(self.identity.device.to_le_bytes());
        bytes.extend(self.identity.inode.to_le_bytes());
        bytes.extend(self.offset.to_le_bytes());
        bytes.extend(self.identity.fingerprint.bytes.to_le_bytes());
        bytes.extend(self.identity.fingerprint.hash.to_le_bytes());
        bytes.extend(self.identity.born_unix_ns.to_le_bytes());
        bytes.push(self.trail.bytes);
        bytes.extend(self.trail.hash.to_le_bytes());
        bytes.extend(self.identity.written_unix_ns.to_le_bytes());
        bytes.into()
    }

    /// `None` for the empty checkpoint of a stream that has none.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Self>, CheckpointError> {
        let Some(version) = bytes.first() else {
            return Ok(None);
        };
        if *version != VERSION {
            return Err(CheckpointError::Version(*version));
        }
        if bytes.len() != ENCODED_BYTES {
            return Err(CheckpointError::Size(bytes.len()));
        }
        let number = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(field)
        };
        let fingerprint = Fingerprint {
            bytes: u16::from_le_bytes([bytes[26], bytes[27]]),
            hash: number(28),
        };
        Ok(Some(Self {
            identity: Identity {
                device: number(2),
                inode: number(10),
                born_unix_ns: number(36).cast_signed(),
                written_unix_ns: number(53).cast_signed(),
                fingerprint,
            },
            offset: number(18),
            trail: Trail {
                bytes: bytes[44],
                hash: number(45),
            },
            line_continues: bytes[1] & FLAG_LINE_CONTINUES != 0,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_checkpoint_reads_back_as_it_was_written(
            device: u64, inode: u64, born_unix_ns: i64, offset: u64, bytes: u16, hash: u64, line_continues: bool,
            trail in (any::<u8>(), any::<u64>()), written_unix_ns: i64,
        ) {
            let fingerprint = Fingerprint { bytes, hash };
            let identity = Identity { device, inode, born_unix_ns, written_unix_ns, fingerprint };
            let trail = Trail { bytes: trail.0, hash: trail.1 };
            let checkpoint = Checkpoint { identity, offset, trail, line_continues };
            prop_assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(Some(checkpoint)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Checkpoint::decode(&bytes);
        }
    }

    #[test]
    fn a_checkpoint_of_a_newer_agent_is_an_error_and_an_empty_one_is_none() {
        assert_eq!(Checkpoint::decode(&[]), Ok(None));
        assert_eq!(Checkpoint::decode(&[9, 0, 0]), Err(CheckpointError::Version(9)));
        assert_eq!(Checkpoint::decode(&[1, 0, 0]), Err(CheckpointError::Size(3)));
    }
}
