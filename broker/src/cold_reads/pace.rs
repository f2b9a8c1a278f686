//! How fast old messages are read: a rate that follows what the machine has to spare while the log is being written.
//!
//! Pure: times and samples in, permission out.
//!
//! | the log grows by | rate |
//! |---|---|
//! | less than 1 MiB a second | any |
//! | more, and neither processors nor disk have anything to spare | halved, down to the floor |
//! | more, and both have | a quarter more, up to twice what is made use of |
//! | more for the first time | the floor |
//!
//! The floor is an eighth of what is written, but no more than configured and no less than an eighth of that: on a machine so
//! slow that writers do less than a fixed floor, they would be the ones who get what is left.

use std::time::{Duration, Instant};

use super::cpu_idle::Ticks;

/// How often the rate is thought over. A tenth of it is two ticks of one processor at 100 a second.
const EVERY: Duration = Duration::from_millis(200);
/// What may be read at once after a pause: a timer is exact to a millisecond.
const BURST: Duration = Duration::from_millis(20);
/// A log that grows by less than this in a second disturbs nobody and is disturbed by nobody.
const WRITING_BYTES: f64 = (1 << 20) as f64;
/// Share of the processors' time that has to be idle for the rate to rise; below the second it falls. Writers that do all they
/// can leave a sixth idle, while they wait for the disk and each other: what is taken of that they wait for.
const IDLE_TO_RISE: f64 = 0.35;
const IDLE_TO_HOLD: f64 = 0.25;
/// Share of the time that the log's writer waits for the disk, above which the rate does not rise; or falls.
const SYNCING_TO_RISE: f64 = 0.60;
const SYNCING_TO_HOLD: f64 = 0.80;
const RISE: f64 = 1.25;
const FALL: f64 = 0.5;
/// The floor, of what is written; and how far below the configured one it may be.
const FLOOR_OF_WRITTEN: f64 = 0.125;
const FLOOR_LEAST: f64 = 0.125;
/// The rate rises to this many times what was read, so that it is near what is wanted when it has to fall.
const HEADROOM: f64 = 2.0;

/// What was seen at one moment; all but `at` are sums since some fixed moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// Bytes of the log.
    pub(super) written: u64,
    /// How long the log's writer has waited for the disk.
    pub(super) synced_for: Duration,
    pub(super) processors: Option<Ticks>,
}

/// The rate, and what was read of it.
#[derive(Debug)]
pub(super) struct Pace {
    floor_max: f64,
    /// Bytes a second; `None`: any.
    rate: Option<f64>,
    /// When all that was read would have been read at this rate.
    paid: Option<Instant>,
    last: Option<Sample>,
    /// Bytes read since the last sample.
    read: f64,
}

/// Whether the machine has something to spare.
#[derive(Debug, PartialEq, Eq)]
enum Spare {
    Yes,
    Little,
    No,
}

impl Pace {
    pub(super) fn new(floor_bytes: u64) -> Pace {
        Pace { floor_max: floor_bytes.max(1) as f64, rate: None, paid: None, last: None, read: 0.0 }
    }

    /// Takes `bytes`, or says how long to wait before asking again.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> Result<(), Duration> {
        if let Some(rate) = self.rate {
            let paid = self.paid.unwrap_or(now).max(now - BURST);
            if paid > now {
                return Err(paid - now);
            }
            self.paid = Some(paid + Duration::from_secs_f64(bytes as f64 / rate));
        }
        self.read += bytes as f64;
        Ok(())
    }

    /// Whether it is time to look at the machine.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last.at) >= EVERY)
    }

    /// Thinks the rate over.
    pub(super) fn observe(&mut self, sample: Sample) {
        let Some(last) = self.last.replace(sample) else { return };
        let seconds = sample.at.saturating_duration_since(last.at).as_secs_f64();
        if seconds < EVERY.as_secs_f64() / 2.0 {
            // Two readers looked at the same time.
            self.last = Some(last);
            return;
        }
        let read = std::mem::take(&mut self.read) / seconds;
        let written = sample.written.saturating_sub(last.written) as f64 / seconds;
        if written < WRITING_BYTES {
            (self.rate, self.paid) = (None, None);
        } else {
            let floor = (written * FLOOR_OF_WRITTEN).clamp(self.floor_max * FLOOR_LEAST, self.floor_max);
            self.rate = Some(self.next_rate(&last, &sample, read).unwrap_or(floor).max(floor));
        }
    }

    /// `None` when the rate was not bounded until now.
    fn next_rate(&self, last: &Sample, sample: &Sample, read: f64) -> Option<f64> {
        let rate = self.rate?;
        Some(match spare(last, sample) {
            Spare::Yes => (rate * RISE).min((read * HEADROOM).max(rate)),
            Spare::Little => rate,
            Spare::No => rate * FALL,
        })
    }
}

fn spare(last: &Sample, sample: &Sample) -> Spare {
    let seconds = sample.at.saturating_duration_since(last.at).as_secs_f64();
    let syncing = sample.synced_for.saturating_sub(last.synced_for).as_secs_f64() / seconds;
    // Where nobody tells, there is nothing that is known to be spare.
    let idle = last.processors.zip(sample.processors).map_or(0.0, |(last, now)| {
        now.idle.saturating_sub(last.idle) as f64 / now.all.saturating_sub(last.all).max(1) as f64
    });
    match (idle, syncing) {
        (idle, syncing) if idle < IDLE_TO_HOLD || syncing > SYNCING_TO_HOLD => Spare::No,
        (idle, syncing) if idle < IDLE_TO_RISE || syncing > SYNCING_TO_RISE => Spare::Little,
        _ => Spare::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: u64 = 10 << 20;
    const STEP: Duration = EVERY;

    /// A machine of one processor, whose log is written or not.
    struct Machine {
        pace: Pace,
        sample: Sample,
    }

    impl Machine {
        fn new() -> Machine {
            let processors = Some(Ticks { idle: 0, all: 0 });
            let sample = Sample { at: Instant::now(), written: 0, synced_for: Duration::ZERO, processors };
            let mut pace = Pace::new(FLOOR);
            pace.observe(sample);
            Machine { pace, sample }
        }

        /// One period goes by, in which as much is read as may be; bytes a second.
        fn reads(&mut self, written: u64, idle: u64, syncing: Duration) -> f64 {
            let (begun, read) = (self.sample.at, 37_000);
            let (mut now, mut bytes) = (begun, 0);
            while now < begun + STEP {
                match self.pace.take(now, read) {
                    Ok(()) => bytes += read,
                    // A timer is late.
                    Err(wait) => now += wait + Duration::from_millis(1),
                }
                // The reader's own part: 1 GB a second.
                now += Duration::from_micros(37);
            }
            self.sample.at = now;
            self.sample.written += written;
            self.sample.synced_for += syncing;
            let known = self.sample.processors;
            self.sample.processors =
                known.map(|ticks| Ticks { idle: ticks.idle + idle, all: ticks.all + 100 });
            self.pace.observe(self.sample);
            bytes as f64 / (now - begun).as_secs_f64()
        }

        fn reads_often(&mut self, written: u64, idle: u64, syncing: Duration) -> f64 {
            (0..30).map(|_| self.reads(written, idle, syncing)).last().unwrap_or_default()
        }
    }

    const NOTHING: Duration = Duration::ZERO;

    #[test]
    fn nobody_waits_while_nobody_writes() {
        let mut machine = Machine::new();
        assert!(machine.reads_often(0, 0, NOTHING) > 0.9e9);
        assert!(machine.reads_often(100_000, 0, NOTHING) > 0.9e9, "a trickle");
    }

    #[test]
    fn beside_writers_that_leave_nothing_the_floor_is_read_and_no_more() {
        for (idle, syncing) in [(0, NOTHING), (18, NOTHING), (90, STEP.mul_f64(0.9))] {
            let rate = Machine::new().reads_often(20 << 20, idle, syncing) / FLOOR as f64;
            assert!((0.9..1.1).contains(&rate), "{rate} of the floor, {idle} % idle, {syncing:?}");
        }
    }

    #[test]
    fn the_floor_is_a_part_of_what_is_written_where_that_is_little() {
        for (written, share) in [(16 << 20, 1.0), (8 << 20, 0.5), (2 << 20, 0.125), (300 << 10, 0.125)] {
            // Five periods a second.
            let rate = Machine::new().reads_often(written, 0, NOTHING) / FLOOR as f64;
            assert!((0.9 * share..1.1 * share).contains(&rate), "{rate} of the floor, {written} a period");
        }
    }

    #[test]
    fn what_writers_leave_is_read() {
        assert!(Machine::new().reads_often(20 << 20, 50, NOTHING) > 0.9e9);
        let mut machine = Machine::new();
        machine.reads_often(20 << 20, 50, NOTHING);
        let rate = machine.reads_often(20 << 20, 0, NOTHING) / FLOOR as f64;
        assert!((0.9..1.1).contains(&rate), "{rate} of the floor once they leave nothing");
        assert!(machine.reads_often(0, 0, NOTHING) > 0.9e9, "and all once they have ended");
    }

    #[test]
    fn a_rate_that_is_not_made_use_of_does_not_rise() {
        let mut machine = Machine::new();
        machine.reads(20 << 20, 50, NOTHING);
        for period in 1..30 {
            machine.sample.at += STEP;
            machine.sample.written += 20 << 20;
            machine.sample.processors = Some(Ticks { idle: 50 * period, all: 100 * period });
            machine.pace.observe(machine.sample);
        }
        assert_eq!(machine.pace.rate, Some(FLOOR as f64));
    }

    #[test]
    fn a_machine_that_does_not_tell_has_nothing_to_spare() {
        let mut machine = Machine::new();
        machine.sample.processors = None;
        let rate = machine.reads_often(20 << 20, 90, NOTHING) / FLOOR as f64;
        assert!((0.9..1.1).contains(&rate), "{rate} of the floor");
    }
}
