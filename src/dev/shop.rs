//! The rows of the demo's shop: the same ones at every run, as text for COPY.
//!
//! Everything of a user follows from the user's id and the number of users, whatever the shards.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::ops::Range;

/// Text of one `COPY … FROM STDIN` for each table, in an order that foreign keys allow.
pub(super) struct Rows(pub(super) Vec<(&'static str, String)>);

/// The same on every shard.
pub(super) fn reference() -> Rows {
    let (mut categories, mut products) = (Lines::default(), Lines::default());
    for (index, (name, parent)) in CATEGORIES.iter().enumerate() {
        let slug = name.to_lowercase().replace(' ', "-");
        categories.row(&[&(index + 1), name, &or_null(*parent), &slug]);
    }
    for id in 1..=PRODUCTS {
        let mut dice = Dice(0x5347 ^ id);
        let (adjective, noun) = (dice.pick(ADJECTIVES), dice.pick(NOUNS));
        let description = dice.chance(80).then(|| format!("A {adjective} {noun}, made to last."));
        let weight = dice.chance(90).then(|| format!("{}.{}", dice.below(20), dice.below(10)));
        let attributes = format!(r#"{{"color": "{}", "size": {}}}"#, dice.pick(COLORS), 30 + dice.below(20));
        products.row(&[
            &id,
            &dice.uuid(),
            &(1 + (id - 1) % CATEGORIES.len() as u64),
            &format!("{adjective} {noun} {id}"),
            &or_null(description),
            &cents(price(id)),
            &or_null(weight),
            &dice.words(),
            &attributes,
            &dice.chance(95),
            &dice.moment(),
        ]);
    }
    Rows(vec![("categories", categories.0), ("products", products.0)])
}

/// Users with everything that hangs on them; `users`: how many there are in all.
pub(super) fn sharded(ids: Range<u64>, users: u64) -> Rows {
    let mut tables = Tables::default();
    for id in ids {
        let mut dice = Dice(id);
        tables.user(id, &mut dice);
        for order in 1..=dice.below(7) {
            tables.order(id, order, &mut dice);
        }
        let products: BTreeSet<u64> = (0..dice.below(4)).map(|_| 1 + dice.below(PRODUCTS)).collect();
        for product in products {
            tables.carts.row(&[&id, &product, &(1 + dice.below(3)), &dice.moment()]);
        }
        for post in 1..=dice.below(5) {
            tables.post(id, post, &mut dice);
        }
        let followed: BTreeSet<u64> = (0..dice.below(8)).map(|_| 1 + dice.below(users)).filter(|f| *f != id).collect();
        for other in followed {
            tables.follows.row(&[&id, &other, &dice.chance(5), &dice.moment()]);
        }
    }
    Rows(vec![
        ("users", tables.users.0),
        ("orders", tables.orders.0),
        ("order_items", tables.order_items.0),
        ("carts", tables.carts.0),
        ("posts", tables.posts.0),
        ("follows", tables.follows.0),
    ])
}

#[derive(Default)]
struct Tables {
    users: Lines,
    orders: Lines,
    order_items: Lines,
    carts: Lines,
    posts: Lines,
    follows: Lines,
}

impl Tables {
    fn user(&mut self, id: u64, dice: &mut Dice) {
        let (first, last) = (dice.pick(FIRST_NAMES), dice.pick(LAST_NAMES));
        let full_name = dice.chance(90).then(|| format!("{first} {last}"));
        let born = dice.chance(70).then(|| date(dice.below(18_000)));
        let avatar = dice.chance(10).then(|| format!("\\\\x{:016x}", dice.next()));
        let created = dice.second();
        let seen = dice.chance(85).then(|| dice.after(created));
        let theme = dice.pick(&["light", "dark"]);
        self.users.row(&[
            &id,
            &format!("{}{id}", first.to_lowercase()),
            &format!("{}.{}.{id}@example.com", first.to_lowercase(), last.to_lowercase()),
            &or_null(full_name),
            &or_null(born),
            &dice.pick(COUNTRIES),
            &cents(dice.below(100_000)),
            &dice.chance(30),
            &dice.words(),
            &format!(r#"{{"theme": "{theme}", "newsletter": {}}}"#, dice.chance(40)),
            &or_null(avatar),
            &or_null(seen),
            &timestamp(created),
        ]);
    }

    fn order(&mut self, user: u64, id: u64, dice: &mut Dice) {
        let mut total = 0;
        for line in 1..=1 + dice.below(4) {
            let (product, quantity) = (1 + dice.below(PRODUCTS), 1 + dice.below(3));
            let discount = dice.chance(10).then(|| format!("0.{:02}", dice.below(50)));
            total += quantity * price(product);
            let price = cents(price(product));
            self.order_items.row(&[&user, &id, &line, &product, &quantity, &price, &or_null(discount)]);
        }
        let status = dice.pick(STATUSES);
        let placed = dice.second();
        let shipped = matches!(status, "shipped" | "delivered").then(|| dice.after(placed));
        let note = dice.chance(15).then_some("Please ring twice");
        self.orders.row(&[
            &user,
            &id,
            &dice.uuid(),
            &status,
            &cents(total),
            &dice.pick(&["EUR", "EUR", "EUR", "GBP", "USD"]),
            &dice.chance(8),
            &or_null(note),
            &timestamp(placed),
            &or_null(shipped),
        ]);
    }

    fn post(&mut self, user: u64, id: u64, dice: &mut Dice) {
        let body = format!("My {} {} is {}", dice.pick(ADJECTIVES), dice.pick(NOUNS), dice.pick(VERDICTS));
        let attachment = format!(r#"[{{"kind": "photo", "bytes": {}}}]"#, 1000 + dice.below(900_000));
        let attachments = dice.chance(25).then_some(attachment);
        let score = dice.chance(90).then(|| format!("{}.{:03}", dice.below(5), dice.below(1000)));
        let published = dice.second();
        let edited = dice.chance(20).then(|| dice.after(published));
        self.posts.row(&[
            &user,
            &id,
            &dice.uuid(),
            &body,
            &dice.words(),
            &or_null(attachments),
            &dice.below(500),
            &or_null(score),
            &dice.chance(97),
            &timestamp(published),
            &or_null(edited),
        ]);
    }
}

/// Rows as COPY's text format has them. No value here holds a tab, a newline or a backslash of its own.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn row(&mut self, values: &[&dyn Display]) {
        for (index, value) in values.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\t" };
            write!(self.0, "{separator}{value}").expect("writing to a String cannot fail");
        }
        self.0.push('\n');
    }
}

/// Pseudo-random numbers (SplitMix64), one sequence per user.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick(&mut self, choices: &[&'static str]) -> &'static str {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn uuid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xfff);
        let (d, e) = (0x8000 | ((low >> 48) & 0x3fff), low & 0xffff_ffff_ffff);
        format!("{a:08x}-{b:04x}-4{c:03x}-{d:04x}-{e:012x}")
    }

    /// An array of 0 to 3 words.
    fn words(&mut self) -> String {
        let words: BTreeSet<&str> = (0..self.below(4)).map(|_| self.pick(WORDS)).collect();
        format!("{{{}}}", words.into_iter().collect::<Vec<_>>().join(","))
    }

    /// A second of the years 2023 to 2025.
    fn moment(&mut self) -> String {
        timestamp(self.second())
    }

    /// Counted from the beginning of 2023.
    fn second(&mut self) -> u64 {
        self.below(3 * 365 * 86_400)
    }

    /// Minutes to days after a second.
    fn after(&mut self, second: u64) -> String {
        timestamp(second + 60 + self.below(10 * 86_400))
    }
}

fn timestamp(second: u64) -> String {
    let (hour, minute) = (second / 3600 % 24, second / 60 % 60);
    format!("{} {hour:02}:{minute:02}:{:02}+00", date(DAY_2023 + second / 86_400), second % 60)
}

fn price(product: u64) -> u64 {
    199 + Dice(product.wrapping_mul(77)).below(20_000)
}

fn cents(amount: u64) -> String {
    format!("{}.{:02}", amount / 100, amount % 100)
}

fn or_null(value: Option<impl Display>) -> String {
    value.map_or_else(|| "\\N".to_owned(), |value| value.to_string())
}

/// The day so many days after 1970-01-01.
fn date(days: u64) -> String {
    let mut year = 1970;
    let mut rest = days;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while rest >= 365 + u64::from(leap(year)) {
        rest -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while rest >= lengths[month] {
        rest -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, rest + 1)
}

const PRODUCTS: u64 = 200;
/// 2023-01-01, in days after 1970-01-01.
const DAY_2023: u64 = 19_358;

const CATEGORIES: &[(&str, Option<u64>)] = &[
    ("Home", None),
    ("Kitchen", Some(1)),
    ("Garden", Some(1)),
    ("Books", None),
    ("Comics", Some(4)),
    ("Clothing", None),
    ("Shoes", Some(6)),
    ("Electronics", None),
    ("Phones", Some(8)),
    ("Audio", Some(8)),
    ("Toys", None),
    ("Outdoor", None),
];
const ADJECTIVES: &[&str] = &["sturdy", "quiet", "bright", "folding", "woollen", "tiny", "second-hand", "heavy"];
const NOUNS: &[&str] = &["lamp", "kettle", "tent", "chair", "radio", "scarf", "atlas", "bicycle", "clock", "kite"];
const COLORS: &[&str] = &["red", "green", "blue", "black", "white"];
const WORDS: &[&str] = &["travel", "music", "food", "sale", "new", "vintage", "sport", "art", "family", "tech"];
const FIRST_NAMES: &[&str] = &["Ada", "Bruno", "Chidi", "Dana", "Elif", "Farid", "Grace", "Hana", "Ines", "Jonas"];
const LAST_NAMES: &[&str] = &["Okafor", "Nowak", "Silva", "Tanaka", "Weber", "Rossi", "Haddad", "Larsen", "Kaya"];
const COUNTRIES: &[&str] = &["DE", "FR", "PL", "NG", "BR", "JP", "IT", "TR", "DK", "GB"];
const STATUSES: &[&str] = &["placed", "paid", "shipped", "delivered", "delivered", "delivered", "cancelled"];
const VERDICTS: &[&str] = &["wonderful", "broken", "on its way", "older than me", "worth every cent"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, expected) in
            [(0, "1970-01-01"), (DAY_2023, "2023-01-01"), (19_782, "2024-02-29"), (20_453, "2025-12-31")]
        {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn rows_do_not_depend_on_how_ids_are_cut() {
        let whole = sharded(1..101, 100).0;
        let cut = [sharded(1..30, 100).0, sharded(30..101, 100).0];
        for (index, (table, text)) in whole.iter().enumerate() {
            assert_eq!(*text, cut.iter().map(|part| part[index].1.as_str()).collect::<String>(), "{table}");
            assert!(!text.is_empty(), "{table}");
        }
    }
}
