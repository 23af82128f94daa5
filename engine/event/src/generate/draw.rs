//! Random draws on integers: uniform, Zipf-weighted, and bijections that make identifiers.

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

/// Weight of the first entry of a Zipf table; the others get a share of it.
const ZIPF_FIRST: u32 = 2_048;
const MASK62: u64 = (1 << 62) - 1;

/// A Zipf distribution (exponent 1) over `0..len`: entry `i` weighs `1 / (i + 1)`.
///
/// Drawn by one look into a table in which every entry stands as often as it weighs.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    slots: Vec<u16>,
}

impl Zipf {
    /// # Panics
    /// When `len` is over 65,536.
    pub(super) fn new(len: u32) -> Zipf {
        let mut slots = Vec::new();
        for index in 0..len {
            let entry = u16::try_from(index).expect("tables have at most 65,536 entries");
            let weight = (ZIPF_FIRST / (index + 1)).max(1) as usize;
            slots.extend(std::iter::repeat_n(entry, weight));
        }
        Zipf { slots }
    }

    pub(super) fn pick(&self, rng: &mut Pcg64Mcg) -> u32 {
        let len = u32::try_from(self.slots.len()).expect("the weights sum to far less than 2^32");
        u32::from(self.slots[below(rng, len) as usize])
    }
}

/// Uniform below `bound`, by multiplication: biased by at most `bound / 2^32`.
pub(super) fn below(rng: &mut Pcg64Mcg, bound: u32) -> u32 {
    let wide = u64::from(rng.next_u32()) * u64::from(bound);
    (wide >> 32) as u32
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014), which turns a small seed into full words.
pub(super) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix(*state)
}

/// The finalizer of SplitMix64: a bijection on 64 bits, so that different numbers stay different.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A bijection on the low 62 bits (all that a version 4 UUID leaves in its second half): xor with
/// a right shift and multiplication by an odd number both have inverses modulo 2^62.
pub(super) fn scramble62(value: u64) -> u64 {
    let value = value & MASK62;
    let value = (value ^ (value >> 31)).wrapping_mul(0xd6e8_feb8_6659_fd93) & MASK62;
    let value = (value ^ (value >> 29)).wrapping_mul(0xa076_1d64_78bd_642f) & MASK62;
    value ^ (value >> 32)
}
