//! Explicit random streams: every consumer of randomness derives its own from a seed and tags.
//!
//! A stream depends on nothing but its seed and tags. Results therefore do not change with batch
//! size, thread count, shard count or the order in which images are visited.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The generator used everywhere.
pub type Stream = ChaCha8Rng;

/// The random stream that belongs to `seed` and `tags` (image index, attack, restart, …).
pub fn stream(seed: u64, tags: &[u64]) -> Stream {
    // SplitMix64 as a sponge: each tag is absorbed, then four words are squeezed out.
    let mut state = seed;
    let mut next = |absorb: u64| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15) ^ absorb.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        state = z ^ (z >> 31);
        state
    };
    next(tags.len() as u64);
    for &tag in tags {
        next(tag);
    }
    let mut key = [0u8; 32];
    for word in key.chunks_exact_mut(8) {
        word.copy_from_slice(&next(0).to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// A stable tag for a name (FNV-1a), so that attacks and corruptions get streams of their own.
pub fn tag(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn streams_differ_by_seed_tag_and_order() {
        let first = |seed, tags: &[u64]| stream(seed, tags).random::<u64>();
        assert_eq!(first(1, &[2, 3]), first(1, &[2, 3]));
        let mut seen =
            vec![first(1, &[2, 3]), first(1, &[3, 2]), first(2, &[2, 3]), first(1, &[2]), first(1, &[])];
        seen.push(first(1, &[2, 3, 0]));
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
