//! Moves the bytes of one connection one way, as its direction's [`Flow`] says.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Flow;
use crate::nemesis::Dice;

/// Bytes of one piece.
const PIECE_BYTES: usize = 16 << 10;
/// Pieces under way in one direction; 4 MiB, about what a socket buffers.
const PIECES_MAX: usize = 256;
/// How long a stalled piece waits: TCP's least retransmission timeout on Linux.
const STALL: Duration = Duration::from_millis(200);

/// The connection is to be reset on both sides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

type Direction = watch::Receiver<Flow>;

/// Waits until bytes get through.
pub(super) async fn until_it_passes(direction: &mut Direction) -> Result<(), Broken> {
    let settled = direction.wait_for(|flow| flow.passes() || *flow == Flow::Refuse).await;
    match settled.map(|flow| *flow) {
        Ok(flow) if flow.passes() => Ok(()),
        // The other case is that all relays are ending.
        _ => Err(Broken),
    }
}

/// Closes so that the other side gets a reset and no orderly end.
pub(super) fn reset(socket: &TcpStream) {
    if let Err(error) = socket.set_zero_linger() {
        tracing::debug!(%error, "a connection is closed instead of reset");
    }
}

/// Moves bytes until `from` ends in order.
pub(super) async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    direction: &Direction,
    dice: &mut Dice,
) -> Result<(), Broken> {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let taken = take(from, sender, direction.clone(), dice);
    tokio::try_join!(taken, give(to, pieces, direction.clone())).map(drop)
}

/// Reads pieces and says when each is due.
async fn take(
    from: &mut (impl AsyncRead + Unpin),
    pieces: mpsc::Sender<(Instant, Bytes)>,
    mut direction: Direction,
    dice: &mut Dice,
) -> Result<(), Broken> {
    let mut due = Instant::now();
    let mut lost = false;
    loop {
        let flow = *direction.borrow_and_update();
        match flow {
            Flow::Refuse => return Err(Broken),
            Flow::Hold => {
                until_it_changes(&mut direction).await?;
                continue;
            }
            _ if flow.passes() && lost => return Err(Broken),
            _ => {}
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let count = tokio::select! {
            // What was sent after a change is dealt with after it.
            biased;
            changed = until_it_changes(&mut direction) => { changed?; continue }
            count = from.read_buf(&mut piece) => count.map_err(|_| Broken)?,
        };
        let flow = *direction.borrow();
        if flow == Flow::Swallow {
            lost = true;
            if count == 0 {
                // That the sender closed is nothing the other side hears of.
                until_it_changes(&mut direction).await?;
            }
            continue;
        }
        if count == 0 {
            return until_it_passes(&mut direction).await;
        }
        due = due.max(Instant::now() + lateness(flow, dice)?);
        pieces.send((due, piece.freeze())).await.map_err(|_| Broken)?;
    }
}

async fn until_it_changes(direction: &mut Direction) -> Result<(), Broken> {
    direction.changed().await.map_err(|_| Broken)
}

fn lateness(flow: Flow, dice: &mut Dice) -> Result<Duration, Broken> {
    match flow {
        Flow::Slow { least, jitter } => {
            Ok(least + Duration::from_micros(dice.below(jitter.as_micros() as u64)))
        }
        Flow::Lossy { stalls, resets } => {
            if dice.below(1000) < u64::from(resets) {
                return Err(Broken);
            }
            Ok(if dice.below(1000) < u64::from(stalls) { STALL } else { Duration::ZERO })
        }
        _ => Ok(Duration::ZERO),
    }
}

/// Writes the pieces when they are due, as long as the direction passes anything.
async fn give(
    to: &mut (impl AsyncWrite + Unpin),
    mut pieces: mpsc::Receiver<(Instant, Bytes)>,
    mut direction: Direction,
) -> Result<(), Broken> {
    while let Some((due, piece)) = pieces.recv().await {
        sleep_until(due).await;
        let flow = *direction.borrow();
        if !flow.passes() {
            until_it_passes(&mut direction).await?;
            if flow == Flow::Swallow {
                // It was on its way when the link was cut: gone, and the stream with it.
                return Err(Broken);
            }
        }
        to.write_all(&piece).await.map_err(|_| Broken)?;
    }
    to.shutdown().await.map_err(|_| Broken)
}
