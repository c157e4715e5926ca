//! Instructions for the kernel's BPF machine, put together by hand: a tracker needs one
//! short program, whose offsets depend on the running kernel, and no compiler for it.
//!
//! Source of the encoding: `Documentation/bpf/standardization/instruction-set.rst` of
//! Linux. Only what that program needs is here.

use std::collections::BTreeMap;

use super::kernel::Map;

/// One of the machine's registers: 0 to 9, and 10 for the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reg(u8);

/// The result of a call.
pub(super) const R0: Reg = Reg(0);
/// Arguments of a call; lost by it.
pub(super) const R1: Reg = Reg(1);
/// As [`R1`]; also what a program is given.
pub(super) const R2: Reg = Reg(2);
/// Kept over calls.
pub(super) const R6: Reg = Reg(6);
/// Kept over calls.
pub(super) const R7: Reg = Reg(7);
/// Kept over calls.
pub(super) const R8: Reg = Reg(8);
/// Kept over calls.
pub(super) const R9: Reg = Reg(9);
/// The end of the frame: what is kept there lies below.
pub(super) const FRAME: Reg = Reg(10);

/// How much is loaded or stored, as the encoding has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Width {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// What is done with a register and a value, as the encoding has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Math {
    Add = 0x00,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Move = 0xb0,
    Subtract = 0x10,
}

/// When a jump is taken, as the encoding has it; comparisons are unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum When {
    Equal = 0x10,
    NotEqual = 0x50,
    Above = 0x20,
    AtLeast = 0x30,
}

/// Where a jump goes.
pub(super) type Label = &'static str;

const LOAD: u8 = 0x61;
const STORE: u8 = 0x63;
const STORE_VALUE: u8 = 0x62;
const MATH: u8 = 0x07;
const JUMP: u8 = 0x05;
const JUMP_BY_WORD: u8 = 0x06;
const BY_REGISTER: u8 = 0x08;
const LOAD_MAP: u8 = 0x18;
const MAP_BY_DESCRIPTOR: u8 = 1;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// Of the functions that a program can call.
const LOOK_UP: i32 = 1;
const PROCESSOR: i32 = 8;

/// An instruction as the kernel takes it.
pub(super) type Word = [u8; 8];

/// A program that jumps forward only.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    words: Vec<Word>,
    labels: BTreeMap<Label, usize>,
    jumps: Vec<(usize, Label)>,
}

impl Assembly {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, code: u8, (to, from): (Reg, Reg), offset: i16, value: i32) -> &mut Self {
        let [offset_low, offset_high] = offset.to_le_bytes();
        let [a, b, c, d] = value.to_le_bytes();
        let registers = to.0 | from.0 << 4;
        self.words
            .push([code, registers, offset_low, offset_high, a, b, c, d]);
        self
    }

    /// `to = *(from + offset)`.
    pub(super) fn load(&mut self, width: Width, to: Reg, from: Reg, offset: i16) -> &mut Self {
        self.push(LOAD | width as u8, (to, from), offset, 0)
    }

    /// `*(to + offset) = from`.
    pub(super) fn store(&mut self, width: Width, to: Reg, offset: i16, from: Reg) -> &mut Self {
        self.push(STORE | width as u8, (to, from), offset, 0)
    }

    /// `*(to + offset) = value`.
    pub(super) fn store_value(
        &mut self,
        width: Width,
        to: Reg,
        offset: i16,
        value: i32,
    ) -> &mut Self {
        self.push(STORE_VALUE | width as u8, (to, R0), offset, value)
    }

    /// `*(to + offset) = from`, unless that is what is there: then nothing is stored, and a
    /// processor that has this memory too need not fetch it again. `spare` is lost.
    pub(super) fn store_if_other(
        &mut self,
        width: Width,
        (to, offset): (Reg, i16),
        from: Reg,
        spare: Reg,
    ) -> &mut Self {
        let over_the_store = 1;
        self.load(width, spare, to, offset)
            .push(
                JUMP | BY_REGISTER | When::Equal as u8,
                (spare, from),
                over_the_store,
                0,
            )
            .store(width, to, offset, from)
    }

    /// `to = to MATH value`.
    pub(super) fn math(&mut self, math: Math, to: Reg, value: i32) -> &mut Self {
        self.push(MATH | math as u8, (to, R0), 0, value)
    }

    /// `to = to MATH from`.
    pub(super) fn math_by(&mut self, math: Math, to: Reg, from: Reg) -> &mut Self {
        self.push(MATH | BY_REGISTER | math as u8, (to, from), 0, 0)
    }

    /// To the label where `reg` is so beside `value`, which is extended with its sign.
    pub(super) fn jump(&mut self, when: When, reg: Reg, value: i32, label: Label) -> &mut Self {
        self.jumps.push((self.words.len(), label));
        self.push(JUMP | when as u8, (reg, R0), 0, value)
    }

    /// To the label where the lower 32 bits of `reg` are so beside `value`.
    pub(super) fn jump_by_word(
        &mut self,
        when: When,
        reg: Reg,
        value: u32,
        label: Label,
    ) -> &mut Self {
        self.jumps.push((self.words.len(), label));
        self.push(JUMP_BY_WORD | when as u8, (reg, R0), 0, value.cast_signed())
    }

    /// To the label where `reg` is so beside `other`.
    pub(super) fn jump_by(&mut self, when: When, reg: Reg, other: Reg, label: Label) -> &mut Self {
        self.jumps.push((self.words.len(), label));
        self.push(JUMP | BY_REGISTER | when as u8, (reg, other), 0, 0)
    }

    /// To the label.
    pub(super) fn go(&mut self, label: Label) -> &mut Self {
        self.jumps.push((self.words.len(), label));
        self.push(JUMP, (R0, R0), 0, 0)
    }

    /// Names the place that comes now.
    pub(super) fn label(&mut self, label: Label) -> &mut Self {
        self.labels.insert(label, self.words.len());
        self
    }

    /// Puts into R0 where the map has what is at the key that lies `offset` from the end of
    /// the frame; 0 where it has nothing there.
    pub(super) fn look_up(&mut self, map: &Map, offset: i16) -> &mut Self {
        self.math_by(Math::Move, R2, FRAME)
            .math(Math::Add, R2, i32::from(offset))
            .push(LOAD_MAP, (R1, Reg(MAP_BY_DESCRIPTOR)), 0, map.descriptor())
            .push(0, (R0, R0), 0, 0)
            .push(CALL, (R0, R0), 0, LOOK_UP)
    }

    /// Puts the number of the processor that runs it into R0.
    pub(super) fn processor(&mut self) -> &mut Self {
        self.push(CALL, (R0, R0), 0, PROCESSOR)
    }

    /// Ends the program; with 0 the kernel would keep its event from whoever records it.
    pub(super) fn exit(&mut self) -> &mut Self {
        self.math(Math::Move, R0, 1).push(EXIT, (R0, R0), 0, 0)
    }

    /// The program, its jumps filled in.
    ///
    /// # Panics
    /// When a jump leads to a label that is not there, or further than a jump goes: both
    /// are mistakes in the program, which has no input.
    pub(super) fn finish(&mut self) -> Vec<Word> {
        let mut words = std::mem::take(&mut self.words);
        for (at, label) in std::mem::take(&mut self.jumps) {
            let to = self.labels.get(label).copied();
            let to = to.unwrap_or_else(|| panic!("no label {label}"));
            let distance = to.checked_sub(at + 1).map(i16::try_from);
            let Some(Ok(distance)) = distance else {
                panic!("{label} is no jump ahead that can be made");
            };
            words[at][2..4].copy_from_slice(&distance.to_le_bytes());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let words = Assembly::new()
            .load(Width::Byte, R2, R6, 34)
            .jump(When::Equal, R2, i32::from(b'R'), "out")
            .math_by(Math::ShiftRight, R8, R1)
            .store(Width::Half, R0, 0, R6)
            .store_value(Width::Word, FRAME, -8, 7)
            .store_if_other(Width::Half, (R0, 2), R7, R1)
            .jump_by_word(When::NotEqual, R6, 0x8000_0001, "out")
            .processor()
            .jump_by(When::Above, R8, R7, "out")
            .label("out")
            .exit()
            .finish();
        let expected: [Word; 13] = [
            [0x71, 0x62, 34, 0, 0, 0, 0, 0],
            [0x15, 0x02, 9, 0, 0x52, 0, 0, 0],
            [0x7f, 0x18, 0, 0, 0, 0, 0, 0],
            [0x6b, 0x60, 0, 0, 0, 0, 0, 0],
            [0x62, 0x0a, 0xf8, 0xff, 7, 0, 0, 0],
            [0x69, 0x01, 2, 0, 0, 0, 0, 0],
            [0x1d, 0x71, 1, 0, 0, 0, 0, 0],
            [0x6b, 0x70, 2, 0, 0, 0, 0, 0],
            [0x56, 0x06, 2, 0, 1, 0, 0, 0x80],
            [0x85, 0, 0, 0, 8, 0, 0, 0],
            [0x2d, 0x78, 0, 0, 0, 0, 0, 0],
            [0xb7, 0, 0, 0, 1, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(words, expected);
    }

    #[test]
    #[should_panic(expected = "no label nowhere")]
    fn a_jump_to_nowhere_is_a_mistake() {
        Assembly::new().go("nowhere").finish();
    }
}
