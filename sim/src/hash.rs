//! A fast hash for traces and checkers: equal on every machine, not meant to withstand an adversary.

/// A hash that is fed piece by piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash(pub u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0x243f_6a88_85a3_08d3)
    }
}

impl Hash {
    /// Takes in a number.
    #[must_use]
    pub fn with(self, number: u64) -> Self {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(mixed ^ (mixed >> 29))
    }

    /// Takes in bytes, and how many they are.
    #[must_use]
    pub fn with_bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut hash = self.with(bytes.len() as u64);
        for word in words {
            hash = hash.with(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash.with(u64::from_le_bytes(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differs_in_length_content_and_order() {
        let hash = |bytes: &[u8]| Hash::default().with_bytes(bytes);
        assert_ne!(hash(b""), hash(b"\0"));
        assert_ne!(hash(b"12345678a"), hash(b"12345678b"));
        assert_ne!(Hash::default().with(1).with(2), Hash::default().with(2).with(1));
    }
}
