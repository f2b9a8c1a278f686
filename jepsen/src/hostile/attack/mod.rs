//! The attacks, by noun. Each is small, tells what it does in a sentence, and names the least that counts as done.

mod admin;
mod connections;
mod control;
mod flight;
mod frames;
mod fuzz;
mod heartbeats;
mod list;
mod locks;
mod peer_floods;
mod peers;
mod pulls;
mod registrations;
mod slow;

pub use list::{all, named, short};

use super::site::Site;
use super::tally::Floor;
use crate::nemesis::Doing;

/// One way to be hostile, or broken.
pub trait Attack: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What it does, in a sentence.
    fn about(&self) -> &'static str;

    /// The least that counts as an attack of this kind (`hostile.I1`).
    fn floor(&self) -> Floor;

    /// Attacks until [`Site::until`], and closes all it has opened.
    ///
    /// # Errors
    /// When it cannot be made.
    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()>;
}
