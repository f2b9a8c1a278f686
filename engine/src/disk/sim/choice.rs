//! What becomes of unsynced work in a power cut: the choices, and who makes them.

/// The unit a disk writes as a whole; a torn write ends on such a boundary.
pub const SECTOR_BYTES: u64 = 512;

/// What a power cut leaves of one unsynced write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFate {
    /// All of it.
    Kept,
    /// Nothing.
    Lost,
    /// Its first sectors, this many.
    Head(u64),
    /// What follows its first sectors, this many.
    Tail(u64),
}

/// Decides what a power cut leaves. Asked once for each unsynced write, change of length and change of names, in the
/// order they were made; the answers are independent, so writes are in effect reordered.
pub trait CrashChoice {
    /// What is left of a write that touches this many sectors (at least 1).
    fn write(&mut self, sectors: u64) -> WriteFate;

    /// Whether a change of a file's length is kept, be it by a write, an allocation or a truncation. A length that is
    /// kept while the bytes are lost shows zeroes.
    fn length(&mut self) -> bool;

    /// Whether a change of a directory is kept; when it is not, none of the later changes of that directory is.
    fn name(&mut self) -> bool;
}

/// The cut came just after the disk had written everything by itself.
pub struct KeepAll;

impl CrashChoice for KeepAll {
    fn write(&mut self, _sectors: u64) -> WriteFate {
        WriteFate::Kept
    }

    fn length(&mut self) -> bool {
        true
    }

    fn name(&mut self) -> bool {
        true
    }
}

/// Nothing survives but what was synced.
pub struct LoseAll;

impl CrashChoice for LoseAll {
    fn write(&mut self, _sectors: u64) -> WriteFate {
        WriteFate::Lost
    }

    fn length(&mut self) -> bool {
        false
    }

    fn name(&mut self) -> bool {
        false
    }
}

/// Chooses by a seed: the same seed gives the same choices.
pub struct SeededChoice {
    state: u64,
}

impl SeededChoice {
    /// Choices number `seed`.
    pub fn new(seed: u64) -> SeededChoice {
        SeededChoice { state: seed }
    }

    /// A number below `bound`, which must not be 0 (splitmix64; the bias of the remainder does not matter here).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Goes through every way a power cut may turn out, one after the other: hand it to crash after crash, and call
/// [`EveryChoice::next`] between two. A write is kept, lost, or torn behind its first, before its last or in its middle
/// sector.
#[derive(Default)]
pub struct EveryChoice {
    /// What was answered, and of how many answers.
    answers: Vec<(u64, u64)>,
    asked: usize,
}

impl EveryChoice {
    /// Goes on to the next way; false when there is none. To be called after each crash.
    #[expect(clippy::should_implement_trait, reason = "it yields nothing")]
    pub fn next(&mut self) -> bool {
        self.answers.truncate(std::mem::take(&mut self.asked));
        while let Some((answer, of)) = self.answers.last_mut() {
            *answer += 1;
            if *answer < *of {
                return true;
            }
            self.answers.pop();
        }
        false
    }

    fn answer(&mut self, of: u64) -> u64 {
        if self.asked == self.answers.len() {
            self.answers.push((0, of));
        }
        self.asked += 1;
        self.answers[self.asked - 1].0
    }
}

impl CrashChoice for EveryChoice {
    fn write(&mut self, sectors: u64) -> WriteFate {
        let cuts = [1, sectors - 1, sectors / 2];
        let cuts = &cuts[..(sectors as usize - 1).min(3)];
        let answer = self.answer(2 + 2 * cuts.len() as u64);
        match answer {
            0 => WriteFate::Lost,
            1 => WriteFate::Kept,
            _ if answer.is_multiple_of(2) => WriteFate::Head(cuts[answer as usize / 2 - 1]),
            _ => WriteFate::Tail(cuts[answer as usize / 2 - 1]),
        }
    }

    fn length(&mut self) -> bool {
        self.answer(2) == 1
    }

    fn name(&mut self) -> bool {
        self.answer(2) == 1
    }
}

impl CrashChoice for SeededChoice {
    fn write(&mut self, sectors: u64) -> WriteFate {
        match self.below(if sectors > 1 { 4 } else { 2 }) {
            0 => WriteFate::Kept,
            1 => WriteFate::Lost,
            2 => WriteFate::Head(1 + self.below(sectors - 1)),
            _ => WriteFate::Tail(1 + self.below(sectors - 1)),
        }
    }

    fn length(&mut self) -> bool {
        self.below(2) == 0
    }

    fn name(&mut self) -> bool {
        self.below(2) == 0
    }
}
