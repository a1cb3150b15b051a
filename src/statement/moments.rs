//! Words in values that PostgreSQL reads as the moment at hand: 'now', 'today' (documentation, 8.5.1.4).

use super::scan::LiteralKind;
use super::values::Values;

impl Values<'_> {
    /// A literal or parameter says, or may say, `now`, `today`, `tomorrow` or `yesterday`: as input of a date or time
    /// it would mean something else each time. What it is input of is not asked.
    pub fn may_mean_a_moment(&self) -> bool {
        let text = self.text.as_bytes();
        let literals = self.literals.iter().any(|literal| {
            let written = text.get(literal.start as usize..literal.end as usize).unwrap_or_default();
            match literal.kind {
                LiteralKind::Integer | LiteralKind::Decimal | LiteralKind::Bits => false,
                LiteralKind::Text | LiteralKind::Dollar => has_moment(written),
                // Its letters may be written in other ways.
                LiteralKind::Escape | LiteralKind::Unicode => written.contains(&b'\\') || has_moment(written),
            }
        });
        literals || self.parameters.is_some_and(|parameters| parameters.each().any(has_moment))
    }
}

/// One of the words stands between characters that are no letters. A backslash may hide letters inside of an array.
fn has_moment(bytes: &[u8]) -> bool {
    let is_word = |word: &[u8]| MOMENTS.iter().any(|moment| moment.eq_ignore_ascii_case(word));
    let escapes = |bytes: &[u8]| bytes.contains(&b'{') && bytes.contains(&b'\\');
    bytes.split(|byte| !byte.is_ascii_alphabetic()).any(is_word) || escapes(bytes)
}

const MOMENTS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_moment_are_found_in_any_spelling() {
        for text in ["'now'", "'NOW'", "'  now  '", "'today 10:00'", "'[yesterday,tomorrow)'", "'{Now}'", "'now2'"] {
            assert!(has_moment(text.as_bytes()), "{text}");
        }
        for text in ["'known'", "'nowhere'", "'2024-01-01'", "'todayish'", "''"] {
            assert!(!has_moment(text.as_bytes()), "{text}");
        }
        assert!(has_moment(br"{n\ow}"));
    }
}
