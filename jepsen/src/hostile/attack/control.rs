//! No attack at all: what the good client alone costs in the same time.

use super::Attack;
use crate::hostile::site::Site;
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;

pub(super) struct Control;

impl Attack for Control {
    fn name(&self) -> &'static str {
        "control"
    }

    fn about(&self) -> &'static str {
        "no attack: what nodes and good client are like without one for the same time"
    }

    fn floor(&self) -> Floor {
        Floor::default()
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            site.to_the_end().await;
            Ok(())
        })
    }
}
