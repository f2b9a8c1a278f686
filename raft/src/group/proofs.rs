//! Proofs of leadership that many reads share.
//!
//! A proof costs openraft's core a message and each peer a request. Thousands of reads at once need no more than one
//! proof each round trip: a read takes part in the first proof that begins after it came. One proof is under way at a time;
//! reads that come meanwhile wait for the next one, all of them for the same.
//!
//! Not here: what a proof is ([`super::reads`]).
//!
//! - `proofs.I1`: a read is answered by a proof that began after the read came. One under way when it came may have been
//!   asked about a state before what was acknowledged meanwhile.
//! - `proofs.I2`: at most one proof is under way, and at most [`READS_MAX`] reads wait.

use std::future::Future;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::proposal::ProposeError;

/// Reads that wait for a proof at a time: far more than a node's clients may have under way.
const READS_MAX: usize = 65_536;

type Proof = Result<(), ProposeError>;
type Read = oneshot::Sender<Proof>;

/// The reads that wait for a proof.
#[derive(Default)]
pub(crate) struct Proofs {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A task makes proofs, until no read waits.
    proving: bool,
    next: Vec<Read>,
}

impl Proofs {
    /// The result of a proof that begins after this call. `prove` makes one.
    pub(crate) async fn share<F>(self: &Arc<Self>, prove: impl Fn() -> F + Send + 'static) -> Proof
    where
        F: Future<Output = Proof> + Send + 'static,
    {
        let (read, proved) = oneshot::channel();
        let is_first = {
            let mut state = self.state.lock();
            if state.next.len() >= READS_MAX {
                return Err(ProposeError::Busy);
            }
            state.next.push(read);
            !mem::replace(&mut state.proving, true)
        };
        if is_first {
            // A task of its own: the first read may be given up while others wait for the same proof.
            drop(tokio::spawn(self.clone().run(prove)));
        }
        proved.await.unwrap_or_else(|_| Err(ProposeError::Stopped("the node stops".into())))
    }

    async fn run<F: Future<Output = Proof>>(self: Arc<Self>, prove: impl Fn() -> F) {
        while let Some(reads) = self.next() {
            let proof = prove().await;
            for read in reads {
                // An error says that the read was given up.
                let _ = read.send(proof.clone());
            }
        }
    }

    /// The reads of the proof that begins now (`proofs.I1`); `None` ends the task.
    fn next(&self) -> Option<Vec<Read>> {
        let mut state = self.state.lock();
        state.proving = !state.next.is_empty();
        state.proving.then(|| mem::take(&mut state.next))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;
    use tokio::task::yield_now;

    use super::*;

    /// Proofs that are made when the test lets them; how many have begun.
    #[derive(Clone)]
    struct Prover {
        begun: Arc<AtomicUsize>,
        may_end: Arc<Semaphore>,
    }

    impl Prover {
        fn new() -> Prover {
            Prover { begun: Arc::default(), may_end: Arc::new(Semaphore::new(0)) }
        }

        fn read(&self, proofs: &Arc<Proofs>) -> tokio::task::JoinHandle<Proof> {
            let (proofs, prover) = (proofs.clone(), self.clone());
            tokio::spawn(async move {
                let prove = move || {
                    let prover = prover.clone();
                    async move {
                        prover.begun.fetch_add(1, Ordering::Relaxed);
                        prover.may_end.acquire().await.unwrap().forget();
                        Ok(())
                    }
                };
                proofs.share(prove).await
            })
        }
    }

    async fn settle() {
        for _ in 0..20 {
            yield_now().await;
        }
    }

    /// 40,000 pulls past a queue's end were 40,000 entries of the log; proofs of their own would be as many messages to peers.
    #[tokio::test]
    async fn proofs_i2_a_thousand_reads_at_once_made_a_thousand_proofs() {
        let (proofs, prover) = (Arc::new(Proofs::default()), Prover::new());
        let reads: Vec<_> = (0..1_000).map(|_| prover.read(&proofs)).collect();
        prover.may_end.add_permits(2);
        assert!(join_all(reads).await.into_iter().all(|proof| proof.unwrap() == Ok(())));
        assert!(prover.begun.load(Ordering::Relaxed) <= 2);
    }

    #[tokio::test]
    async fn proofs_i1_a_read_is_not_answered_by_a_proof_that_began_before_it_came() {
        let (proofs, prover) = (Arc::new(Proofs::default()), Prover::new());
        let early = prover.read(&proofs);
        settle().await;
        assert_eq!(prover.begun.load(Ordering::Relaxed), 1);
        let late = prover.read(&proofs);
        settle().await;
        prover.may_end.add_permits(1);
        assert_eq!(early.await.unwrap(), Ok(()));
        settle().await;
        assert!(!late.is_finished(), "its proof is under way");
        assert_eq!(prover.begun.load(Ordering::Relaxed), 2);
        prover.may_end.add_permits(1);
        assert_eq!(late.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_takes_no_other_with_it() {
        let (proofs, prover) = (Arc::new(Proofs::default()), Prover::new());
        let (first, second) = (prover.read(&proofs), prover.read(&proofs));
        settle().await;
        first.abort();
        prover.may_end.add_permits(2);
        assert_eq!(second.await.unwrap(), Ok(()));
    }
}
