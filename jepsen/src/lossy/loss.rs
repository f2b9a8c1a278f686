//! What a power cut takes of that which was not synced.

use crate::nemesis::Dice;

/// Which unsynced changes survive. A disk may write them in any order and tear them between sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing unsynced survives.
    All,
    /// Everything does: the kernel had just written all back.
    None,
    /// Each piece of `granule` bytes (512 or 4096) survives or not, by itself.
    Scattered {
        /// Bytes that survive or go together.
        granule: u64,
    },
    /// The first ones survive up to some point: a torn tail.
    Head,
    /// The last ones survive from some point on: written in the wrong order.
    Tail,
}

impl Loss {
    /// One of them.
    pub fn draw(dice: &mut Dice) -> Self {
        match dice.below(6) {
            0 | 1 => Self::All,
            2 => Self::Scattered { granule: 512 },
            3 => Self::Scattered { granule: 4096 },
            4 => Self::Head,
            _ => Self::Tail,
        }
    }

    /// The fate of `total` changes that are asked for in their order.
    pub(super) fn of_sectors(self, total: u64, dice: &mut Dice) -> Fate {
        Fate { loss: self, asked: 0, turn: dice.below(total + 1), piece: None }
    }
}

/// Says of one change after the other whether it survives.
pub(super) struct Fate {
    loss: Loss,
    asked: u64,
    /// Changes before this one are the first ones.
    turn: u64,
    /// The last piece and what became of it.
    piece: Option<(u64, bool)>,
}

impl Fate {
    /// Whether the change of sector `number` survives.
    pub(super) fn survives(&mut self, number: u64, dice: &mut Dice) -> bool {
        let first = self.asked < self.turn;
        self.asked += 1;
        match self.loss {
            Loss::All => false,
            Loss::None => true,
            Loss::Head => first,
            Loss::Tail => !first,
            Loss::Scattered { granule } => {
                let piece = number / (granule / 512).max(1);
                match self.piece {
                    Some((last, survives)) if last == piece => survives,
                    _ => {
                        let survives = dice.one_in(2);
                        self.piece = Some((piece, survives));
                        survives
                    }
                }
            }
        }
    }
}

/// What a power cut took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Unsynced sectors that are gone.
    pub sectors_lost: u64,
    /// Unsynced sectors that survived.
    pub sectors_kept: u64,
    /// Files whose unsynced length is gone.
    pub lengths_lost: u64,
    /// Unsynced changes of names that are gone.
    pub names_lost: u64,
    /// Unsynced changes of names that survived.
    pub names_kept: u64,
}

impl std::ops::AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.sectors_lost += other.sectors_lost;
        self.sectors_kept += other.sectors_kept;
        self.lengths_lost += other.lengths_lost;
        self.names_lost += other.names_lost;
        self.names_kept += other.names_kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(loss: Loss, seed: u64) -> Vec<bool> {
        let mut dice = Dice::new(seed);
        let mut fate = loss.of_sectors(16, &mut dice);
        (0..16).map(|number| fate.survives(number, &mut dice)).collect()
    }

    #[test]
    fn heads_and_tails_are_cut_at_one_place() {
        for seed in 0..20 {
            assert!(fates(Loss::Head, seed).is_sorted_by(|a, b| a >= b));
            assert!(fates(Loss::Tail, seed).is_sorted());
        }
        assert_eq!(fates(Loss::All, 0), [false; 16]);
    }

    #[test]
    fn sectors_of_one_granule_share_their_fate() {
        for seed in 0..20 {
            let fates = fates(Loss::Scattered { granule: 4096 }, seed);
            assert!(fates.chunks(8).all(|page| page.iter().all(|one| *one == page[0])));
        }
        assert_ne!(fates(Loss::Scattered { granule: 512 }, 1), fates(Loss::Scattered { granule: 512 }, 2));
    }
}
