//! Attacks on real processes: one that is borne, and one that only says it attacked.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use folio_jepsen::binary;
use folio_jepsen::cluster::ports_are_free;
use folio_jepsen::hostile::attack::{Attack, named};
use folio_jepsen::hostile::{Bounds, Floor, Plan, Report, Site, run};
use folio_jepsen::nemesis::Doing;

struct Nothing;

impl Attack for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn about(&self) -> &'static str {
        "waits"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 1, ..Floor::default() }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            site.to_the_end().await;
            Ok(())
        })
    }
}

async fn report(attacks: Vec<Box<dyn Attack>>, from: u16) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let base_port = (from..from + 240).step_by(60).find(|base| ports_are_free(*base, 3)).unwrap();
    let plan = Plan {
        binary: binary::find(None).unwrap(),
        dir: dir.path().to_owned(),
        base_port,
        seed: 1,
        attacks,
        length: Duration::from_secs(3),
        rate: 200,
        open_files: 1024,
        bounds: Bounds::wide(),
    };
    run(plan).await.unwrap()
}

/// `hostile.I1`
#[tokio::test(flavor = "multi_thread")]
async fn an_attack_that_does_nothing_is_not_taken_for_one_that_was_borne() {
    let mut attacks: Vec<Box<dyn Attack>> = vec![Box::new(Nothing)];
    attacks.extend(named(&["bad-frames".to_owned()]).unwrap());
    let report = report(attacks, 15_500).await;
    assert!(!report.ok);
    let [nothing, bad] = &report.attacks[..] else { panic!("two attacks: {report}") };
    assert_eq!(nothing.broken, ["did not attack: 0 connections opened, at least 1 expected"]);
    assert!(bad.seen.done.closed > 0, "{report}");
    assert!(bad.seen.during.sends.count > 100 && bad.seen.missing == 0, "{report}");
    assert_eq!(report.clusters_lost, 0, "{report}");
}
