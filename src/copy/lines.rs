//! Where the lines that one of several readers was given stand in the whole.

use std::collections::VecDeque;

/// Of the newest lines: of older ones nobody asks any more.
#[derive(Debug, Default)]
pub struct Lines {
    /// How far each line is behind the one before.
    steps: VecDeque<u32>,
    /// The newest line, counted among its own and in the whole.
    own: u64,
    whole: u64,
}

impl Lines {
    /// One more row, of so many lines, the last of which is this one.
    pub fn push(&mut self, lines: u32, last: u64) {
        // Before a server knows how lines end, it counts none within quotes.
        let lines = if self.own == 0 { lines.min(1) } else { lines };
        for line in (0..u64::from(lines)).rev() {
            if self.steps.len() == KEPT {
                self.steps.pop_front();
            }
            let whole = last - line;
            self.steps.push_back(u32::try_from(whole - self.whole).unwrap_or(u32::MAX));
            self.own += 1;
            self.whole = whole;
        }
    }

    /// Which line of the whole its line of this number is.
    pub fn in_whole(&self, own: u64) -> Option<u64> {
        let back = usize::try_from(self.own.checked_sub(own)?).ok()?;
        (back < self.steps.len()).then(|| {
            let between: u64 = self.steps.iter().rev().take(back).map(|&step| u64::from(step)).sum();
            self.whole - between
        })
    }
}

/// Lines that are on the way to a server at once are fewer, as a rule.
const KEPT: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_again() {
        let mut lines = Lines::default();
        lines.push(1, 1);
        lines.push(1, 4);
        lines.push(3, 9);
        assert_eq!([1, 2, 3, 5, 6].map(|own| lines.in_whole(own)), [Some(1), Some(4), Some(7), Some(9), None]);
        for last in 10..10 + KEPT as u64 {
            lines.push(1, last * 2);
        }
        assert_eq!(lines.in_whole(5), None, "too long ago");
        assert_eq!(lines.in_whole(6), Some(20));
    }
}
