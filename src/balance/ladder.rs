//! The clock ladder: which moment of the primary a replica has caught up to, by the proxy's own clock.
//!
//! Each rung is the time at which a sample of the primary *started*, and the position it gave: whatever was
//! acknowledged before that time lies at or below that position. A replica that has replayed the position has all of it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// A position in the write-ahead log, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `16/B374D848`
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        Some(Self((u64::from_str_radix(high, 16).ok()? << 32) | u64::from_str_radix(low, 16).ok()?))
    }

    /// Insert positions just behind a page header point at what no record fills yet: rounded down to the page.
    #[must_use]
    pub fn below_page_header(self) -> Self {
        let within = self.0 % PAGE;
        if within <= LONG_HEADER { Self(self.0 - within) } else { self }
    }
}

/// What a primary said.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub started: Instant,
    pub insert: Lsn,
    pub flush: Lsn,
    pub timeline: u32,
}

#[derive(Clone, Copy, Debug)]
struct Rung {
    /// When the first sample of this position started, and the newest one.
    first: Instant,
    at: Instant,
    insert: Lsn,
    flush: Lsn,
}

/// Of one primary on one timeline.
#[derive(Debug, Default)]
pub struct Ladder {
    timeline: u32,
    rungs: VecDeque<Rung>,
}

impl Ladder {
    pub fn add(&mut self, sample: Sample) {
        let insert = sample.insert.below_page_header();
        let went_back = self.rungs.back().is_some_and(|last| insert < last.insert || sample.flush < last.flush);
        if sample.timeline != self.timeline || went_back {
            // Another history, or one that lost its end in a crash: positions of the old one say nothing about it.
            self.rungs.clear();
            self.timeline = sample.timeline;
        }
        let rung = Rung { first: sample.started, at: sample.started, insert, flush: sample.flush };
        match self.rungs.back_mut() {
            // Nothing was written since: the newest rung is simply newer.
            Some(last) if last.insert == insert && last.flush == sample.flush => last.at = sample.started,
            _ => self.rungs.push_back(rung),
        }
        if self.rungs.len() > MAX_RUNGS {
            self.thin(sample.started);
        }
    }

    /// Leaves rungs out, the more the older they are: how late a replica is stays known within a share of it.
    fn thin(&mut self, now: Instant) {
        let newest = self.rungs.back().map(|rung| rung.at);
        let mut kept: Option<Instant> = None;
        self.rungs.retain(|rung| {
            let age = now.saturating_duration_since(rung.at);
            let apart = kept.is_none_or(|kept| rung.first.saturating_duration_since(kept) >= age / RUNGS_PER_AGE);
            let keep = newest == Some(rung.at) || (apart && age < MAX_AGE);
            kept = if keep { Some(rung.at) } else { kept };
            keep
        });
    }

    /// The newest rung at or below a replayed position, by insert positions.
    pub fn caught_up(&self, replayed: Lsn) -> Option<Instant> {
        self.newest(|rung| rung.insert <= replayed)
    }

    /// The same by flush positions.
    pub fn caught_up_flush(&self, replayed: Lsn) -> Option<Instant> {
        self.newest(|rung| rung.flush <= replayed)
    }

    /// How far behind a replica is: in time since the primary was where it is now, and in bytes.
    pub fn lag(&self, replayed: Lsn, now: Instant) -> (Option<Duration>, Option<u64>) {
        let Some(last) = self.rungs.back() else { return (None, None) };
        let place = self.rungs.partition_point(|rung| rung.flush <= replayed);
        let reached = place.checked_sub(1).and_then(|place| self.rungs.get(place));
        let time = match (reached, self.rungs.get(place)) {
            (_, None) => Duration::ZERO,
            (None, Some(lacking)) => now.saturating_duration_since(lacking.first),
            (Some(reached), Some(lacking)) if reached.flush == replayed => now.saturating_duration_since(lacking.first),
            (Some(reached), Some(lacking)) => now.saturating_duration_since(between(reached, lacking, replayed)),
        };
        (Some(time), Some(last.flush.0.saturating_sub(replayed.0)))
    }

    /// Positions never go back from rung to rung.
    fn newest(&self, has: impl Fn(&Rung) -> bool) -> Option<Instant> {
        let place = self.rungs.partition_point(has).checked_sub(1)?;
        self.rungs.get(place).map(|rung| rung.at)
    }
}

/// When the primary was at a position between two rungs, as if it had written evenly.
fn between(reached: &Rung, lacking: &Rung, position: Lsn) -> Instant {
    let written = (lacking.flush.0 - reached.flush.0) as f64;
    let share = (position.0 - reached.flush.0) as f64 / written;
    reached.at + lacking.first.saturating_duration_since(reached.at).mul_f64(share)
}

const PAGE: u64 = 8192;
/// The first page of a segment has the longest header.
const LONG_HEADER: u64 = 40;
const MAX_RUNGS: usize = 4096;
/// Thinned, rungs are apart by this part of their age.
const RUNGS_PER_AGE: u32 = 256;
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(rungs: &[(u64, u64)]) -> (Ladder, Instant) {
        let start = Instant::now();
        let mut ladder = Ladder::default();
        for &(millis, position) in rungs {
            let position = Lsn(8_192_000 + position);
            let started = start + Duration::from_millis(millis);
            ladder.add(Sample { started, insert: position, flush: position, timeline: 1 });
        }
        (ladder, start)
    }

    #[test]
    fn a_replica_has_what_was_acknowledged_before_the_rung_it_reached() {
        let (ladder, start) = ladder(&[(0, 100), (10, 200), (20, 300)]);
        let caught_up = |position: u64| ladder.caught_up(Lsn(8_192_000 + position)).map(|at| (at - start).as_millis());
        assert_eq!(caught_up(99), None);
        assert_eq!(caught_up(250), Some(10));
        assert_eq!(caught_up(300), Some(20));
    }

    #[test]
    fn an_idle_primary_is_no_lag() {
        let (ladder, start) = ladder(&[(0, 100), (10, 100), (5000, 100)]);
        let now = start + Duration::from_secs(6);
        assert_eq!(ladder.lag(Lsn(8_192_100), now), (Some(Duration::ZERO), Some(0)));
        assert_eq!(ladder.caught_up(Lsn(8_192_100)), Some(start + Duration::from_secs(5)));
        let (time, bytes) = ladder.lag(Lsn(8_192_050), now);
        assert_eq!((time, bytes), (Some(Duration::from_secs(6)), Some(50)));
    }

    #[test]
    fn lag_counts_from_when_a_position_was_first_seen() {
        // Written at 10, idle since: a replica that lacks it falls behind all the same.
        let (ladder, start) = ladder(&[(0, 50), (10, 100), (20, 100), (5000, 100)]);
        let lag = ladder.lag(Lsn(8_192_050), start + Duration::from_secs(6));
        assert_eq!(lag, (Some(Duration::from_millis(5990)), Some(50)));
    }

    #[test]
    fn a_long_history_is_kept_less_exactly_but_kept() {
        let rungs: Vec<(u64, u64)> = (0..3 * MAX_RUNGS as u64).map(|step| (step, 100 + step)).collect();
        let (ladder, start) = ladder(&rungs);
        assert!(ladder.rungs.len() <= MAX_RUNGS);
        let now = start + Duration::from_secs(100);
        let (lag, _) = ladder.lag(Lsn(8_192_000 + 100 + 10), now);
        let late = now - start - lag.unwrap();
        assert!(late <= Duration::from_millis(11), "{late:?}");
        assert_eq!(ladder.caught_up(Lsn(8_192_099)), None);
        assert_eq!(ladder.caught_up(Lsn(8_192_100)), Some(start));
    }

    #[test]
    fn a_replica_that_stopped_is_late_however_idle_the_primary_is_since() {
        let (ladder, start) = ladder(&[(0, 100), (10, 200), (20, 200), (5000, 200)]);
        let now = start + Duration::from_secs(6);
        assert_eq!(ladder.lag(Lsn(8_192_150), now), (Some(Duration::from_millis(5995)), Some(50)));
        assert_eq!(ladder.caught_up(Lsn(8_192_200)), Some(start + Duration::from_secs(5)));
    }

    #[test]
    fn a_long_history_is_kept_within_bounds() {
        let millis = 60_000;
        let rungs: Vec<(u64, u64)> = (0..millis).map(|millis| (millis, millis)).collect();
        let (ladder, start) = ladder(&rungs);
        assert!(ladder.rungs.len() <= MAX_RUNGS);
        let now = start + Duration::from_millis(millis);
        for behind in [5_u64, 500, 5_000, 59_000] {
            let (lag, bytes) = ladder.lag(Lsn(8_192_000 + millis - behind), now);
            let lag = u64::try_from(lag.unwrap().as_millis()).unwrap();
            assert!((behind - 1..=behind).contains(&lag), "{lag} ms for {behind}");
            assert_eq!(bytes, Some(behind - 1));
        }
    }

    #[test]
    fn a_primary_that_lost_its_end_in_a_crash_begins_anew() {
        let (mut ladder, start) = ladder(&[(0, 100), (10, 200)]);
        let position = Lsn(8_192_150);
        let started = start + Duration::from_millis(20);
        ladder.add(Sample { started, insert: position, flush: position, timeline: 1 });
        assert_eq!(ladder.caught_up(Lsn(8_192_149)), None);
        assert_eq!(ladder.caught_up(Lsn(8_192_250)), Some(started));
    }

    #[test]
    fn a_new_timeline_begins_anew() {
        let (mut ladder, start) = ladder(&[(0, 100)]);
        ladder.add(Sample { started: start, insert: Lsn(50), flush: Lsn(50), timeline: 2 });
        assert_eq!(ladder.caught_up(Lsn(40)), None);
    }

    #[test]
    fn positions_are_read() {
        assert_eq!(Lsn::parse("16/B374D848"), Some(Lsn(0x16_B374_D848)));
        assert_eq!(Lsn(8192 * 3 + 24).below_page_header(), Lsn(8192 * 3));
        assert_eq!(Lsn(8192 * 3 + 100).below_page_header(), Lsn(8192 * 3 + 100));
    }
}
