//! A progress bar on a terminal; nothing where standard error is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

use super::shared::Shared;

const TICK: Duration = Duration::from_millis(250);

/// Draws until the time is up.
pub(super) async fn show(shared: Arc<Shared>) {
    let begun = Instant::now();
    let warmup = shared.tally.lock().from.saturating_duration_since(begun);
    let whole = shared.end().saturating_duration_since(begun);
    let style = ProgressStyle::with_template("{bar:32} {elapsed}/{msg}");
    let bar = ProgressBar::new(whole.as_millis() as u64);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    let mut before = 0;
    while Instant::now() < shared.end() {
        sleep(TICK).await;
        let acked = shared.tally.lock().acked;
        let rate = (acked - before) as f64 / TICK.as_secs_f64();
        before = acked;
        bar.set_position(begun.elapsed().as_millis() as u64);
        let state =
            if begun.elapsed() < warmup { "warming up".to_owned() } else { format!("{rate:.0} messages/s") };
        bar.set_message(format!("{:.0}s {state}", whole.as_secs_f64()));
    }
    bar.finish_and_clear();
}
