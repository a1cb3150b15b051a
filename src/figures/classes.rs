//! SQLSTATEs by class: a server may send any, what is counted apart is a list.

/// Place of a SQLSTATE's class in [`CLASSES`].
pub(super) fn place(sqlstate: &str) -> usize {
    let class = sqlstate.get(..2).unwrap_or_default();
    CLASSES.binary_search(&class).unwrap_or(CLASSES.len())
}

pub(super) fn name(place: usize) -> &'static str {
    CLASSES.get(place).copied().unwrap_or("other")
}

/// Classes of PostgreSQL documentation, appendix A, in order.
pub(super) const CLASSES: [&str; 43] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23", "24", "25", "26",
    "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58",
    "72", "F0", "HV", "P0", "XX",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_and_no_others_are_made() {
        assert!(CLASSES.is_sorted());
        for (sqlstate, class) in [("42P01", "42"), ("XX000", "XX"), ("ZZ123", "other"), ("", "other"), ("é", "other")]
        {
            assert_eq!(name(place(sqlstate)), class, "{sqlstate}");
        }
    }
}
