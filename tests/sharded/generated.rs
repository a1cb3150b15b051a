//! Statements put together at random, from a seed: reads of every kind by themselves, writes in transactions that are
//! rolled back. A difference is made as small as it stays one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use crate::differential::{Answer, alike, ask, is_ordered};

/// What became of them.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) alike: usize,
    /// By reason, names and numbers left out.
    pub(crate) refused: BTreeMap<String, usize>,
    pub(crate) different: usize,
    seed: u64,
}

/// `PGWEIR_SEED`: where to begin. `PGWEIR_STATEMENTS` of them, or as many as there are in `PGWEIR_DIFFERENTIAL_SECONDS`.
pub(crate) async fn compare(whole: &Client, sharded: &Client, failures: &mut Vec<String>) -> Counts {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seed = number("PGWEIR_SEED").unwrap_or(1);
    let end = number("PGWEIR_DIFFERENTIAL_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let most = number("PGWEIR_STATEMENTS").unwrap_or(if end.is_some() { u64::MAX } else { 400 });
    let mut counts = Counts { seed, ..Counts::default() };
    let mut pieces = Pieces(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for _ in 0..most {
        if end.is_some_and(|end| Instant::now() > end) || failures.len() >= MOST_FAILURES {
            break;
        }
        let case = pieces.case();
        match case.run(whole, sharded).await {
            Came::Alike(statements) => counts.alike += statements,
            Came::Refused(reason) => *counts.refused.entry(reason).or_default() += 1,
            Came::Different(_) => {
                counts.different += 1;
                failures.push(shrink(case, whole, sharded).await);
            }
        }
    }
    counts
}

/// As small as it still differs, and how.
async fn shrink(mut case: Case, whole: &Client, sharded: &Client) -> String {
    let mut difference = String::new();
    let mut candidates = vec![case.clone()];
    while let Some(candidate) = candidates.pop() {
        if let Came::Different(told) = candidate.run(whole, sharded).await {
            (case, difference) = (candidate, told);
            candidates = case.smaller();
        }
    }
    if difference.is_empty() { format!("{case:?}: differs no more when it is asked again") } else { difference }
}

/// One read, or a transaction.
#[derive(Clone, Debug)]
enum Case {
    Read(Box<Read>),
    Block(Vec<Step>),
}

#[derive(Clone, Debug)]
enum Step {
    Read(Read),
    Write(Write),
}

enum Came {
    /// So many statements.
    Alike(usize),
    Refused(String),
    Different(String),
}

impl Case {
    async fn run(&self, whole: &Client, sharded: &Client) -> Came {
        match self {
            Self::Read(read) => compare_one(&read.to_string(), whole, sharded).await,
            Self::Block(steps) => {
                for client in [whole, sharded] {
                    client.batch_execute("begin").await.unwrap();
                }
                let mut came = Came::Alike(0);
                let mut before = String::from("begin");
                for step in steps {
                    let text = step.to_string();
                    match (compare_one(&text, whole, sharded).await, &mut came) {
                        (Came::Alike(_), Came::Alike(count)) => *count += 1,
                        (Came::Different(told), _) => {
                            came = Came::Different(format!("{before};\n{told}"));
                            break;
                        }
                        (refused, _) => {
                            came = refused;
                            break;
                        }
                    }
                    before += &format!(";\n{text}");
                }
                for client in [whole, sharded] {
                    client.batch_execute("rollback").await.unwrap();
                }
                came
            }
        }
    }

    /// The least first to be tried last.
    fn smaller(&self) -> Vec<Self> {
        match self {
            Self::Read(read) => read.smaller().into_iter().map(|read| Self::Read(Box::new(read))).collect(),
            Self::Block(steps) => {
                let mut all = Vec::new();
                for (place, step) in steps.iter().enumerate() {
                    for less in step.smaller() {
                        let mut steps = steps.clone();
                        steps[place] = less;
                        all.push(Self::Block(steps));
                    }
                }
                for place in 0..steps.len() {
                    let mut steps = steps.clone();
                    steps.remove(place);
                    all.push(Self::Block(steps));
                }
                all
            }
        }
    }
}

async fn compare_one(text: &str, whole: &Client, sharded: &Client) -> Came {
    let (expected, found) = (ask(whole, text).await, ask(sharded, text).await);
    match &found {
        Answer::Error { sqlstate, message } if sqlstate == "0A000" && !alike(&expected, &found, false) => {
            Came::Refused(reason(message))
        }
        _ if alike(&expected, &found, is_ordered(text)) => Came::Alike(1),
        _ => Came::Different(format!("{text}\n  one PostgreSQL: {expected:?}\n  sharded:        {found:?}")),
    }
}

/// Without what stands in quotes, and numbers.
fn reason(message: &str) -> String {
    let mut quoted = false;
    let outside = message.chars().filter(|letter| {
        quoted ^= *letter == '"';
        !quoted && *letter != '"' && !letter.is_ascii_digit()
    });
    outside.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Step {
    fn smaller(&self) -> Vec<Self> {
        match self {
            Self::Read(read) => read.smaller().into_iter().map(Self::Read).collect(),
            Self::Write(write) => write.smaller().into_iter().map(Self::Write).collect(),
        }
    }
}

/// A query over `u`, which is always there, and perhaps `o`.
#[derive(Clone, Debug, Default)]
struct Read {
    distinct: bool,
    list: Vec<String>,
    from: String,
    condition: Condition,
    group: Vec<String>,
    having: Option<String>,
    order: Vec<String>,
    limit: String,
    /// UNION and the like, and what stands behind it.
    compound: Option<(String, Box<Read>)>,
    /// It stands in a WITH, or in FROM, of a query that counts or lists its rows.
    wrapped: Option<&'static str>,
}

impl Read {
    fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut less = |change: &dyn Fn(&mut Self)| {
            let mut copy = self.clone();
            change(&mut copy);
            all.push(copy);
        };
        for condition in self.condition.smaller() {
            less(&|read| read.condition = condition.clone());
        }
        if let Some((_, second)) = &self.compound {
            for second in second.smaller().into_iter().filter(|second| second.list.len() == self.list.len()) {
                less(&|read| read.compound.iter_mut().for_each(|(_, old)| **old = second.clone()));
            }
        }
        // The last one tells all rows apart.
        let order = if self.group.is_empty() && self.compound.is_none() { self.order.len() } else { 0 };
        for place in 1..order {
            less(&|read| drop(read.order.remove(place - 1)));
        }
        if self.list.len() > 1 && self.group.is_empty() && self.compound.is_none() && !self.distinct {
            for place in 0..self.list.len() {
                less(&|read| drop(read.list.remove(place)));
            }
        }
        if self.having.is_some() {
            less(&|read| read.having = None);
        }
        if !self.limit.is_empty() {
            less(&|read| read.limit.clear());
        }
        if self.wrapped.is_some() {
            less(&|read| read.wrapped = None);
        }
        if self.compound.is_some() {
            less(&|read| read.compound = None);
        }
        if self.distinct {
            less(&|read| read.distinct = false);
        }
        all
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { list, from, condition, .. } = self;
        let distinct = if self.distinct { "distinct " } else { "" };
        let mut text = format!("select {distinct}{} from {from} where {condition}", list.join(", "));
        if !self.group.is_empty() {
            text += &format!(" group by {}", self.group.join(", "));
        }
        if let Some(having) = &self.having {
            text += &format!(" having {having}");
        }
        if let Some((how, second)) = &self.compound {
            text = format!("({text}) {how} ({second})");
        }
        if !self.order.is_empty() {
            text += &format!(" order by {}", self.order.join(", "));
        }
        text += &self.limit;
        match self.wrapped {
            None => f.write_str(&text),
            Some(wrapping) => f.write_str(&wrapping.replace("{}", &text)),
        }
    }
}

#[derive(Clone, Debug)]
enum Condition {
    Plain(String),
    Not(Box<Condition>),
    Both(Box<Condition>, &'static str, Box<Condition>),
}

impl Default for Condition {
    fn default() -> Self {
        Self::Plain("true".to_owned())
    }
}

impl Condition {
    fn smaller(&self) -> Vec<Self> {
        match self {
            Self::Plain(text) if text == "true" => Vec::new(),
            Self::Plain(_) => vec![Self::default()],
            Self::Not(inner) => {
                let within = inner.smaller().into_iter().map(|less| Self::Not(Box::new(less)));
                within.chain([(**inner).clone(), Self::default()]).collect()
            }
            Self::Both(left, word, right) => {
                let of_left = left.smaller().into_iter().map(|less| Self::Both(Box::new(less), word, right.clone()));
                let of_right = right.smaller().into_iter().map(|less| Self::Both(left.clone(), word, Box::new(less)));
                of_left.chain(of_right).chain([(**left).clone(), (**right).clone(), Self::default()]).collect()
            }
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => write!(f, "({text})"),
            Self::Not(inner) => write!(f, "not {inner}"),
            Self::Both(left, word, right) => write!(f, "({left} {word} {right})"),
        }
    }
}

/// `head`, a condition, `tail`; or, without a condition, rows to insert.
#[derive(Clone, Debug)]
struct Write {
    head: String,
    rows: Vec<String>,
    condition: Option<Condition>,
    tail: String,
}

impl Write {
    fn smaller(&self) -> Vec<Self> {
        let conditions = self.condition.iter().flat_map(Condition::smaller);
        let mut all: Vec<Self> = conditions.map(|less| Self { condition: Some(less), ..self.clone() }).collect();
        for place in (0..self.rows.len()).filter(|_| self.rows.len() > 1) {
            let mut less = self.clone();
            less.rows.remove(place);
            all.push(less);
        }
        if !self.tail.is_empty() {
            all.push(Self { tail: String::new(), ..self.clone() });
        }
        all
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(read) => write!(f, "{read}"),
            Self::Write(Write { head, rows, condition, tail }) => match condition {
                Some(condition) => write!(f, "{head} where {condition}{tail}"),
                None => write!(f, "{head} {}{tail}", rows.join(", ")),
            },
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (reason, count) in &self.refused {
            writeln!(f, "{count:4} refused: {reason}")?;
        }
        let refused: usize = self.refused.values().sum();
        let Self { alike, different, seed, .. } = self;
        write!(f, "seed {seed}: {alike} generated statements answered alike, {refused} refused, {different} different")
    }
}

/// A source of numbers (xorshift), and of words chosen by them.
struct Pieces(u64);

impl Pieces {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn some(&mut self, of: &[&str], least: usize) -> Vec<String> {
        let count = least + self.below(3);
        (0..count).map(|_| self.one(of).to_owned()).collect()
    }

    fn case(&mut self) -> Case {
        if self.below(5) > 0 {
            return Case::Read(Box::new(self.read()));
        }
        let steps = (0..2 + self.below(4)).map(|_| match self.below(3) {
            0 => Step::Read(self.read()),
            _ => Step::Write(self.write()),
        });
        let mut steps: Vec<Step> = steps.collect();
        let all = |columns: &str, from: &str| Read {
            list: vec![columns.to_owned()],
            from: from.to_owned(),
            order: vec!["1".to_owned(), "2".to_owned()],
            ..Read::default()
        };
        steps.push(Step::Read(all("u.id, u.handle, u.full_name, u.country, u.balance, u.verified", "users u")));
        steps.push(Step::Read(all("o.user_id, o.id, o.total, o.status, o.note, o.gift", "orders o")));
        Case::Block(steps)
    }

    fn read(&mut self) -> Read {
        let (from, has_orders) = FROM[self.below(FROM.len())];
        let condition = self.condition(3, has_orders);
        let columns: &[&str] = if has_orders { &[USER_COLUMNS, ORDER_COLUMNS].concat() } else { USER_COLUMNS };
        // Of rows that are alike in what a window orders by, any may be the first.
        let windows = if has_orders { &WINDOWS[..2] } else { WINDOWS };
        let unique = if has_orders { "u.id, o.user_id, o.id" } else { "u.id" };
        let from = from.to_owned();
        let read = Read { from, condition, ..Read::default() };
        match self.below(9) {
            0..3 => self.grouped(read),
            3 => self.compound(read),
            4 => {
                let list = [self.some(columns, 1), self.some(windows, 1)].concat();
                Read { list, order: vec![unique.to_owned()], limit: self.limit(), ..read }
            }
            5 => Read { list: self.some(columns, 1), ..read },
            6 => Read { list: self.some(columns, 1), distinct: true, ..read },
            _ => {
                let mut order = Vec::new();
                for key in self.some(columns, 0) {
                    order.push(format!("{key}{}", self.one(&["", "", " desc", " nulls first", " desc nulls last"])));
                }
                order.push(unique.to_owned());
                let wrapped = [None, None, None, Some(WRAPPINGS[0]), Some(WRAPPINGS[1])][self.below(5)];
                let mut list = self.some(columns, 1);
                if wrapped.is_some() {
                    // Names must not stand twice.
                    list = vec!["u.id".to_owned(), "u.handle as name".to_owned()];
                }
                Read { list, order, limit: self.limit(), wrapped, ..read }
            }
        }
    }

    fn limit(&mut self) -> String {
        self.one(&["", "", " limit 3", " limit 5 offset 2", " fetch first row only", " offset 4"]).to_owned()
    }

    fn grouped(&mut self, read: Read) -> Read {
        let keys = self.some(GROUP_KEYS, 0);
        let list = [keys.clone(), self.some(AGGREGATES, 1)].concat();
        let order = (1..=keys.len()).map(|place| place.to_string()).collect();
        let limit =
            if keys.is_empty() { String::new() } else { self.one(&["", "", " limit 2", " offset 1"]).to_owned() };
        let having = (self.below(4) == 0).then(|| self.one(HAVING).to_owned());
        let group = match self.below(6) {
            0 if keys.len() > 1 => vec![format!("rollup ({})", keys.join(", "))],
            1 if keys.len() > 1 => vec![format!("cube ({})", keys.join(", "))],
            _ => keys,
        };
        if group.iter().any(|group| group.contains('(')) {
            // A NULL may be a value or stand for all.
            return Read { list, group, having, ..read };
        }
        Read { list, group, having, order, limit, ..read }
    }

    fn compound(&mut self, read: Read) -> Read {
        let list = self.some(&["u.id", "u.handle", "u.country", "u.balance"], 1);
        let how = self.one(&["union", "union all", "intersect", "except", "except all"]).to_owned();
        let second = Read {
            list: list.clone(),
            from: "users u".to_owned(),
            condition: self.condition(2, false),
            ..Read::default()
        };
        let order = (1..=list.len()).map(|place| place.to_string()).collect();
        Read { list, compound: Some((how, Box::new(second))), order, limit: self.limit(), ..read }
    }

    fn condition(&mut self, depth: usize, has_orders: bool) -> Condition {
        if depth > 0 {
            match self.below(5) {
                0 | 1 => {
                    let word = self.one(&["and", "or"]);
                    let (left, right) = (self.condition(depth - 1, has_orders), self.condition(depth - 1, has_orders));
                    return Condition::Both(Box::new(left), word, Box::new(right));
                }
                2 => return Condition::Not(Box::new(self.condition(depth - 1, has_orders))),
                _ => {}
            }
        }
        let conditions: &[&str] =
            if has_orders { &[USER_CONDITIONS, ORDER_CONDITIONS].concat() } else { USER_CONDITIONS };
        Condition::Plain(self.one(conditions).to_owned())
    }

    fn write(&mut self) -> Write {
        let returning =
            self.one(&["", " returning u.id, u.handle", " returning u.id, u.balance + 1 as more"]).to_owned();
        match self.below(5) {
            0 => {
                let condition = self.condition(2, false);
                let set = self.some(ASSIGNMENTS, 1).into_iter().collect::<std::collections::BTreeSet<_>>();
                let mut columns = std::collections::BTreeSet::new();
                let set: Vec<String> = set
                    .into_iter()
                    .filter(|set| columns.insert(set.split(' ').next().unwrap_or_default().to_owned()))
                    .collect();
                let head = format!("update users u set {}", set.join(", "));
                Write { head, rows: Vec::new(), condition: Some(condition), tail: returning }
            }
            1 => {
                let (head, condition) = ("delete from users u".to_owned(), Some(self.condition(2, false)));
                Write { head, rows: Vec::new(), condition, tail: returning }
            }
            2 => {
                let head = "delete from orders o".to_owned();
                let condition = Some(Condition::Plain(self.one(ORDER_CONDITIONS_ALONE).to_owned()));
                Write {
                    head,
                    rows: Vec::new(),
                    condition,
                    tail: self.one(&["", " returning o.user_id, o.id"]).to_owned(),
                }
            }
            3 => {
                let set = self.one(&["total = o.total + 1", "note = 'x'", "gift = not o.gift", "status = 'paid'"]);
                let condition = Some(Condition::Plain(self.one(ORDER_CONDITIONS_ALONE).to_owned()));
                Write { head: format!("update orders o set {set}"), rows: Vec::new(), condition, tail: String::new() }
            }
            _ => {
                let head = "insert into users as u (id, handle, email, full_name, country, balance) values".to_owned();
                let mut rows = Vec::new();
                for _ in 0..=self.below(3) {
                    let id = self.one(&["5", "6", "1005", "901", "902", "903", "1901", "1902", "1903"]);
                    let name = self.one(&["null", "'Ann Lee'", "'Zoë'", "''"]);
                    let balance = self.one(&["0", "-1.5", "17.25"]);
                    rows.push(format!("({id}, 'h{id}', 'e{id}', {name}, 'DE', {balance})"));
                }
                let conflict = self.one(&[
                    "",
                    " on conflict do nothing",
                    " on conflict (id) do update set full_name = excluded.full_name, balance = u.balance + 1",
                ]);
                Write { head, rows, condition: None, tail: format!("{conflict}{returning}") }
            }
        }
    }
}

const MOST_FAILURES: usize = 20;
const FROM: &[(&str, bool)] = &[
    ("users u", false),
    ("users u", false),
    ("users u join orders o on o.user_id = u.id", true),
    ("users u left join orders o on u.id = o.user_id", true),
    ("users u left join orders o on u.id = o.user_id and o.gift", true),
    ("users u left join orders o on o.note = u.full_name", true),
    ("orders o right join users u on u.id = o.user_id", true),
    ("users u full join orders o on u.id = o.user_id", true),
    ("users u, orders o", true),
    ("users u join products p on p.id = u.id % 10 + 1 left join orders o on o.user_id = u.id", true),
    ("users u cross join lateral (select * from orders x where x.user_id = u.id order by x.id limit 1) o", true),
    ("(select * from users where id > 5) u", false),
];
const USER_COLUMNS: &[&str] = &[
    "u.id",
    "u.handle",
    "u.full_name",
    "u.balance",
    "u.country",
    "u.verified",
    "u.balance + 1",
    "lower(u.full_name)",
    "u.handle collate \"C\"",
    "coalesce(u.full_name, u.handle)",
    "case when u.verified then u.country else 'none' end",
    "(select count(*) from orders x where x.user_id = u.id)",
    "(select max(x.total) from orders x)",
];
const ORDER_COLUMNS: &[&str] = &["o.id", "o.user_id", "o.total", "o.note", "o.gift"];
const WINDOWS: &[&str] = &[
    "sum(u.balance) over (order by u.id)",
    "count(*) over (partition by u.verified)",
    "row_number() over (partition by u.country order by u.id)",
    "rank() over (order by u.balance, u.id)",
    "lag(u.handle) over (order by u.id)",
];
const GROUP_KEYS: &[&str] = &["u.country", "u.verified", "u.full_name", "u.id", "u.id % 3"];
const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(u.full_name)",
    "count(distinct u.country)",
    "sum(u.balance)",
    "avg(u.balance)",
    "min(u.handle)",
    "max(u.id)",
    "avg(u.id)",
    "sum(u.balance) filter (where u.verified)",
    "string_agg(u.handle, ',' order by u.id)",
    "bool_or(u.verified)",
    "array_agg(u.id order by u.id desc)",
    "round(stddev(u.balance), 6)",
];
const HAVING: &[&str] = &["count(*) > 1", "sum(u.balance) > 0", "max(u.id) > 1000", "count(distinct u.country) > 1"];
const WRAPPINGS: &[&str] =
    &["with c as ({}) select id, name from c order by id, name", "select count(*), max(c.id), min(c.name) from ({}) c"];
const ASSIGNMENTS: &[&str] = &[
    "full_name = null",
    "full_name = upper(u.full_name)",
    "balance = u.balance * 2",
    "balance = (select count(*) from orders x where x.user_id = u.id)",
    "verified = not u.verified",
    "country = 'PL'",
];
const USER_CONDITIONS: &[&str] = &[
    "u.id = 5",
    "u.id = 1005",
    "u.id in (5, 6, 1005)",
    "u.id not in (5, null)",
    "u.id between 15 and 1003",
    "u.id > 1000",
    "u.id < 1001",
    "u.id = null",
    "u.id is null",
    "u.id is not null",
    "u.id = '1006'",
    "u.id = any('{7,1007}')",
    "u.id <> 5",
    "u.verified",
    "u.full_name = 'Ann Lee'",
    "u.full_name is null",
    "u.full_name like 'A%'",
    "u.balance > 0",
    "u.country in ('DE', 'PL')",
    "u.id in (select user_id from carts)",
    "u.id not in (select user_id from carts)",
    "exists (select from orders x where x.user_id = u.id and x.gift)",
    "not exists (select from orders x where x.user_id = u.id)",
    "exists (select from orders x where x.note = u.full_name)",
    "u.balance > (select avg(x.total) from orders x where x.user_id = u.id)",
    "true",
    "null",
];
const ORDER_CONDITIONS: &[&str] = &[
    "o.user_id = 5",
    "o.user_id is null",
    "o.user_id = u.id",
    "(o.user_id, o.id) = (1005, 2)",
    "(o.user_id, o.id) >= (1005, 2)",
    "o.total > 50",
    "o.note is null",
    "o.gift",
    "o.user_id <> 1005",
];
const ORDER_CONDITIONS_ALONE: &[&str] = &[
    "o.user_id = 5",
    "o.user_id in (5, 1005)",
    "o.total > 50",
    "o.note is null",
    "o.user_id in (select x.id from users x where x.verified)",
    "exists (select from users x where x.id = o.user_id and x.country = 'DE')",
];
