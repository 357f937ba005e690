//! Random secrets, and what is kept of them.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

/// What is kept of a secret: its SHA-256. A secret has 256 random bits, so nobody can find it from this by
/// trying, and a slow hash would only slow down the relay.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SecretHash([u8; 32]);

impl SecretHash {
    pub(crate) fn of(secret: &str) -> Self {
        let hash = digest(&SHA256, secret.as_bytes());
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }

    pub(crate) fn to_hex(self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretHash")
    }
}

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

/// A new secret of 256 random bits, in characters that need no quoting anywhere.
pub(crate) fn random_secret(prefix: &str) -> Result<String, NoRandomness> {
    Ok(prefix.to_owned() + &BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?))
}

/// A short name that is not secret: 8 hexadecimal digits.
pub(crate) fn random_id() -> Result<String, NoRandomness> {
    Ok(hex(&random::<4>()?))
}

fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_prefixed_and_never_the_same() {
        let one = random_secret("mst_").unwrap();
        assert_eq!(one.len(), 4 + 43);
        assert!(one.starts_with("mst_"));
        assert_ne!(one, random_secret("mst_").unwrap());
    }

    #[test]
    fn a_hash_comes_back_from_its_text_and_other_text_is_no_hash() {
        let hash = SecretHash::of("secret");
        assert_eq!(SecretHash::from_hex(&hash.to_hex()), Some(hash));
        for bad in ["", "00", &"g".repeat(64), &"0".repeat(65), &"é".repeat(32)] {
            assert_eq!(SecretHash::from_hex(bad), None, "{bad}");
        }
        assert_eq!(format!("{hash:?}"), "SecretHash");
    }
}
