//! The console's language: a few words, in any case, with or without a semicolon.

use super::show::{TOPICS, Topic};
use crate::error::{Error, SqlState};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    Show(&'static Topic),
    Reload,
    /// One database, or all.
    Pause(Option<String>),
    Resume(Option<String>),
    Shutdown(Shutdown),
    /// What drivers send around a statement, and has no meaning here: its tag.
    Nothing(&'static str),
}

/// What a shutdown waits for, once nobody is let in any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// The transactions that are open: as SIGTERM.
    Transactions,
    /// The last client to leave by itself.
    Clients,
}

impl Command {
    /// Reads one command. `None`: there is none in the text.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, Error> {
        let plain = without_comments(text);
        let words: Vec<&str> = plain.split_whitespace().collect();
        let upper: Vec<String> = words.iter().map(|word| word.to_uppercase()).collect();
        let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
        let database = |index: usize| words.get(index).map(|word| word.trim_matches('"').to_owned());
        Ok(Some(match upper.as_slice() {
            [] => return Ok(None),
            ["SHOW", what] => Self::Show(topic(what)?),
            ["RELOAD"] => Self::Reload,
            ["PAUSE" | "RESUME", _, _, ..] => return Err(unknown(&plain)),
            ["PAUSE", ..] => Self::Pause(database(1)),
            ["RESUME", ..] => Self::Resume(database(1)),
            ["SHUTDOWN"] | ["SHUTDOWN", "WAIT_FOR_SERVERS"] => Self::Shutdown(Shutdown::Transactions),
            ["SHUTDOWN", "WAIT_FOR_CLIENTS"] => Self::Shutdown(Shutdown::Clients),
            ["BEGIN", ..] => Self::Nothing("BEGIN"),
            ["COMMIT", ..] => Self::Nothing("COMMIT"),
            ["ROLLBACK", ..] => Self::Nothing("ROLLBACK"),
            ["SET", _, ..] => Self::Nothing("SET"),
            _ => return Err(unknown(&plain)),
        }))
    }

    /// Changes something: for `admin_users` only.
    pub(super) fn is_order(&self) -> bool {
        !matches!(self, Self::Show(_) | Self::Nothing(_))
    }
}

/// The commands of a simple query.
pub(super) fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').filter(|part| !without_comments(part).trim().is_empty())
}

fn topic(name: &str) -> Result<&'static Topic, Error> {
    TOPICS.iter().find(|topic| topic.name == name).ok_or_else(|| {
        let error = Error::new(SqlState::SYNTAX, format!("nothing to show under \"{}\"", name.to_lowercase()));
        error.with_hint("SHOW HELP lists what can be shown.")
    })
}

fn unknown(command: &str) -> Error {
    let error = Error::new(SqlState::SYNTAX, format!("unknown command \"{}\"", command.trim()));
    error.with_hint("SHOW HELP lists the commands.")
}

/// Tools mark their statements with comments.
fn without_comments(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = [rest.find("--"), rest.find("/*")].into_iter().flatten().min() {
        plain.push_str(&rest[..start]);
        plain.push(' ');
        let (end, behind) = if rest[start..].starts_with("--") { ("\n", 1) } else { ("*/", 2) };
        rest = rest[start..].find(end).map_or("", |place| &rest[start + place + behind..]);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match Command::parse(text) {
            Ok(Some(Command::Show(topic))) => format!("show {}", topic.name),
            Ok(Some(command)) => format!("{command:?}"),
            Ok(None) => "nothing".to_owned(),
            Err(error) => format!("{} {}", error.sqlstate.0, error.message),
        }
    }

    #[test]
    fn commands_are_read() {
        for (text, expected) in [
            ("show stats", "show STATS"),
            ("  ShOw\n POOLS ", "show POOLS"),
            ("/* exporter */ show lag -- all of it", "show LAG"),
            ("-- nothing", "nothing"),
            ("pause", "Pause(None)"),
            ("PAUSE \"Shop\"", "Pause(Some(\"Shop\"))"),
            ("resume shop", "Resume(Some(\"shop\"))"),
            ("shutdown", "Shutdown(Transactions)"),
            ("shutdown wait_for_clients", "Shutdown(Clients)"),
            ("set extra_float_digits = 3", "Nothing(\"SET\")"),
            ("pause a b", "42601 unknown command \"pause a b\""),
            ("shutdown now", "42601 unknown command \"shutdown now\""),
            ("show passwords", "42601 nothing to show under \"passwords\""),
            ("select 1", "42601 unknown command \"select 1\""),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_query_is_split_into_its_commands() {
        assert_eq!(
            parts("show stats; show pools ;; ").map(str::trim).collect::<Vec<_>>(),
            ["show stats", "show pools"]
        );
        assert_eq!(parts(" ; -- none").count(), 0);
    }
}
