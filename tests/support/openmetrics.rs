//! Reads OpenMetrics as strictly as the specification is written (OpenMetrics 1.0, text format).

#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, BTreeSet};

/// Label names and values in order of the names.
pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By name of the family: its type.
    pub(crate) types: BTreeMap<String, String>,
    /// By name of the sample, with its suffix.
    pub(crate) samples: BTreeMap<String, Vec<(Labels, f64)>>,
}

impl Metrics {
    /// Panics where the text is not what it must be.
    pub(crate) fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        let (mut metrics, mut family) = (Self::default(), Family::default());
        let mut seen = BTreeSet::new();
        for line in body.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                metrics.describe(comment, &mut family);
                continue;
            }
            let (name, labels, value) = sample(line);
            family.check_name(&name, line);
            assert!(seen.insert((name.clone(), labels.clone())), "twice: {line}");
            metrics.samples.entry(name).or_default().push((labels, value));
        }
        metrics.check_histograms();
        metrics
    }

    fn describe(&mut self, comment: &str, family: &mut Family) {
        let mut words = comment.splitn(3, ' ');
        let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or(""));
        if family.name != name {
            assert!(!self.types.contains_key(name), "samples of {name} are not together");
            *family = Family { name: name.to_owned(), ..Family::default() };
        }
        assert!(!family.has_samples.get(), "{comment} stands behind samples");
        assert!(family.told.insert(what.to_owned()), "{comment} stands twice");
        match what {
            "TYPE" => {
                assert!(["counter", "gauge", "histogram"].contains(&rest), "{comment}");
                rest.clone_into(&mut family.kind);
                self.types.insert(name.to_owned(), rest.to_owned());
            }
            "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{comment}"),
            "HELP" => assert!(!rest.is_empty(), "{comment}"),
            _ => panic!("{comment}"),
        }
    }

    /// Values of a sample with at least these labels.
    pub(crate) fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let all = self.samples.get(name).map(Vec::as_slice).unwrap_or_default();
        let has = |of: &Labels| labels.iter().all(|(name, value)| of.get(*name).is_some_and(|known| known == value));
        all.iter().filter(|(labels, _)| has(labels)).map(|(_, value)| *value).collect()
    }

    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.values(name, labels).iter().sum()
    }

    /// Buckets grow, end with everything, and agree with the count.
    fn check_histograms(&self) {
        for name in self.types.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for (labels, count) in &self.samples[&format!("{name}_bucket")] {
                let mut labels = labels.clone();
                let bound = labels.remove("le").expect("a bucket has its bound");
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                series.entry(labels).or_default().push((bound, *count));
            }
            for (labels, buckets) in series {
                assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}{labels:?}: {buckets:?}");
                let (last, all) = *buckets.last().unwrap();
                assert!(last.is_infinite(), "{name}{labels:?}: {buckets:?}");
                let exact = |suffix: &str| {
                    let samples = &self.samples[&format!("{name}{suffix}")];
                    samples.iter().find(|(known, _)| *known == labels).expect("count and sum of each series").1
                };
                assert!((exact("_count") - all).abs() < 0.5, "{name}{labels:?}");
                assert!(exact("_sum") >= 0.0);
            }
        }
    }
}

#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    told: BTreeSet<String>,
    has_samples: std::cell::Cell<bool>,
}

impl Family {
    fn check_name(&self, name: &str, line: &str) {
        self.has_samples.set(true);
        let suffix = name.strip_prefix(&self.name).unwrap_or_else(|| panic!("{line} is not of {}", self.name));
        let known: &[&str] = match self.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{line} has no type: {other:?}"),
        };
        assert!(known.contains(&suffix), "{line} is no sample of a {}", self.kind);
    }
}

/// `name{label="value",…} number`
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, tail) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !label.is_empty(), "{line}");
            let (value, tail) = quoted(tail);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = tail.strip_prefix(',').unwrap_or(tail);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

/// Up to the closing quote: what was meant, and what is behind.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => return (value, &text[place + 1..]),
            '\\' => value.push(match letters.next().unwrap().1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                other => panic!("\\{other} is no escape"),
            }),
            other => value.push(other),
        }
    }
    panic!("{text} has no end")
}
