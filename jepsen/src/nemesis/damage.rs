//! Damage to a file, as a disk does it: silently, and never with a new length.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Dice;

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Bytes of a sector.
const SECTOR: u64 = 512;

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// One bit is another one.
    Flip,
    /// A page of 4 KiB reads as zero.
    ZeroPage,
    /// A sector was never written and has what it had before: zero.
    LostWrite,
    /// A page was written over another one, whose own place was not written.
    Misdirected,
}

/// Damage that was done.
#[derive(Debug, Clone)]
pub(super) struct Inflicted {
    /// In words.
    pub(super) what: String,
    /// The bytes that may differ: where they begin and how many they are.
    pub(super) places: Vec<(u64, u64)>,
}

impl Damage {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        match dice.below(4) {
            0 => Self::Flip,
            1 => Self::ZeroPage,
            2 => Self::LostWrite,
            _ => Self::Misdirected,
        }
    }

    /// Does it to the first `len` bytes of the file at about `offset`; says what was done. What the
    /// damage would leave as it is (a page that is zero already) gets a flipped bit instead.
    ///
    /// # Errors
    /// When there are no bytes, or the file cannot be changed.
    pub(super) fn inflict(self, path: &Path, len: u64, offset: u64, dice: &mut Dice) -> Result<Inflicted> {
        ensure!(len > 0, "{} has no bytes to damage", path.display());
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        let offset = offset.min(len - 1);
        let places = match self {
            Self::Flip => Vec::new(),
            Self::ZeroPage => zero(&file, offset / PAGE * PAGE, PAGE, len)?,
            Self::LostWrite => zero(&file, offset / SECTOR * SECTOR, SECTOR, len)?,
            Self::Misdirected => misdirect(&file, offset / PAGE, len / PAGE, dice)?,
        };
        if !places.is_empty() {
            return Ok(Inflicted { what: format!("{self:?} at {offset} of {}", path.display()), places });
        }
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        byte[0] ^= 1 << dice.below(8);
        file.write_all_at(&byte, offset)?;
        let what = format!("{:?} at {offset} of {}", Self::Flip, path.display());
        Ok(Inflicted { what, places: vec![(offset, 1)] })
    }
}

/// Zeroes so many bytes within the first `len`; nowhere when they were zero.
fn zero(file: &File, from: u64, count: u64, len: u64) -> Result<Vec<(u64, u64)>> {
    let mut bytes = vec![0; count.min(len - from) as usize];
    file.read_exact_at(&mut bytes, from)?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Vec::new());
    }
    bytes.fill(0);
    file.write_all_at(&bytes, from)?;
    Ok(vec![(from, bytes.len() as u64)])
}

/// Puts page `page` over another one of `pages` and zeroes its own place; nowhere when nothing changes.
fn misdirect(file: &File, page: u64, pages: u64, dice: &mut Dice) -> Result<Vec<(u64, u64)>> {
    let other = dice.below(pages);
    if page >= pages || other == page {
        return Ok(Vec::new());
    }
    let (mut own, mut there) = (vec![0; PAGE as usize], vec![0; PAGE as usize]);
    file.read_exact_at(&mut own, page * PAGE)?;
    file.read_exact_at(&mut there, other * PAGE)?;
    if own == there {
        return Ok(Vec::new());
    }
    file.write_all_at(&own, other * PAGE)?;
    file.write_all_at(&vec![0; PAGE as usize], page * PAGE)?;
    Ok(vec![(page * PAGE, PAGE), (other * PAGE, PAGE)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_damage_changes_the_file_and_not_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let whole: Vec<u8> = (0..5 * PAGE).map(|at| (at % 251) as u8 + 1).collect();
        for (number, damage) in
            [Damage::Flip, Damage::ZeroPage, Damage::LostWrite, Damage::Misdirected].into_iter().enumerate()
        {
            for seed in 0..20 {
                std::fs::write(&path, &whole).unwrap();
                let mut dice = Dice::new(seed * 4 + number as u64);
                let offset = dice.below(5 * PAGE);
                damage.inflict(&path, 5 * PAGE, offset, &mut dice).unwrap();
                let after = std::fs::read(&path).unwrap();
                let differing = after.iter().zip(&whole).filter(|(a, b)| a != b).count() as u64;
                let most = [1, PAGE, SECTOR, 2 * PAGE][number];
                assert!(
                    after.len() == whole.len() && (1..=most).contains(&differing),
                    "{damage:?}: {differing}"
                );
            }
        }
    }

    #[test]
    fn what_is_zero_already_gets_a_flipped_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [0; 100]).unwrap();
        Damage::ZeroPage.inflict(&path, 100, 5000, &mut Dice::new(1)).unwrap();
        let after = std::fs::read(&path).unwrap();
        assert_eq!(after.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        assert_ne!(after[99], 0, "an offset beyond the bytes is the last one");
    }
}
