//! A set of numbers that are almost all there, such as the members that have got a broadcast: one bit for each.

/// Numbers from 0 up to the largest that was added.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers(Vec<u64>);

impl Numbers {
    /// Adds a number. Returns `false` if it was there already.
    pub(crate) fn insert(&mut self, number: usize) -> bool {
        let (word, bit) = (number / WORD_BITS, 1 << (number % WORD_BITS));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let Some(bits) = self.0.get_mut(word) else { return false };
        let is_new = *bits & bit == 0;
        *bits |= bit;
        is_new
    }

    /// Whether a number is in the set.
    pub(crate) fn contains(&self, number: usize) -> bool {
        self.0.get(number / WORD_BITS).is_some_and(|bits| bits & (1 << (number % WORD_BITS)) != 0)
    }
}

const WORD_BITS: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(numbers in prop::collection::vec(0_usize..500, 0..200)) {
            let (mut numbers_set, mut model) = (Numbers::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(numbers_set.insert(number), model.insert(number));
            }
            prop_assert!((0..600).all(|number| numbers_set.contains(number) == model.contains(&number)));
        }
    }
}
