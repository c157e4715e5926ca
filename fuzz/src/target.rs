//! What a target is: a decoder, the inputs to begin with, and what must hold.

use crate::chance::Chance;

/// What a target made of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken: worth mutating further.
    Accepted,
    /// It was refused, as a value.
    Refused,
}

/// A decoder under test. That it does not panic, hang or take more memory than it
/// should is checked by who runs it.
pub trait Target {
    /// What it is called on the command line and in the corpus.
    fn name(&self) -> &'static str;

    /// Its share of the time.
    fn weight(&self) -> u64 {
        1
    }

    /// Valid inputs, and near misses, to begin with.
    fn seeds(&self) -> Vec<Vec<u8>>;

    /// A mutation that knows the format; false where there is none.
    fn mutate(&self, _input: &mut Vec<u8>, _chance: &mut Chance) -> bool {
        false
    }

    /// Runs one input; the error says what did not hold.
    fn check(&self, input: &[u8]) -> Result<Verdict, String>;
}
