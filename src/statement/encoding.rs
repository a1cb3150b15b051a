//! Character sets.

/// In this encoding (by any of PostgreSQL's names for it) a byte of a longer character may look like ASCII: then neither
/// texts nor lines can be told apart by bytes.
pub fn embeds_ascii(encoding: &str) -> bool {
    let bare: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect();
    EMBEDDING.contains(&bare.to_ascii_lowercase().as_str())
}

const EMBEDDING: [&str; 17] = [
    "sjis",
    "mskanji",
    "shiftjis",
    "win932",
    "windows932",
    "big5",
    "win950",
    "windows950",
    "gbk",
    "win936",
    "windows936",
    "gb18030",
    "uhc",
    "win949",
    "windows949",
    "johab",
    "shiftjis2004",
];
