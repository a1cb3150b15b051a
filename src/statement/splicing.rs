//! Texts with other words in some of their places.

use std::ops::Range;

/// `places` come in their order. Gives, too, where each made the text longer: its end, in characters from 1, and by how
/// much.
pub fn spliced(text: &str, places: impl IntoIterator<Item = (Range<usize>, String)>) -> (String, Vec<(usize, isize)>) {
    let (mut made, mut shifts, mut from, mut end) = (String::with_capacity(text.len()), Vec::new(), 0, 1);
    for (place, instead) in places {
        let (before, length) = (&text[from..place.start], instead.chars().count());
        made.push_str(before);
        made.push_str(&instead);
        end += before.chars().count() + length;
        shifts.push((end, length.cast_signed() - text[place.clone()].chars().count().cast_signed()));
        from = place.end;
    }
    made.push_str(&text[from..]);
    (made, shifts)
}
