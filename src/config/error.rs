//! What is wrong with a file: for a person with the text underlined, for a log in one line.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use super::Source;

/// Why a file is no configuration.
#[derive(Clone)]
pub struct ConfigError {
    source: Arc<Source>,
    /// Never empty; the first one is exact, later ones may follow from it.
    problems: Vec<Problem>,
}

/// One thing that is wrong, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    message: String,
    /// With a word on each; the first place is the one to blame.
    places: Vec<(Place, String)>,
    help: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// As in `databases.0.port`.
    Path(String),
    Bytes(Range<usize>),
}

impl ConfigError {
    pub fn new(source: Arc<Source>, problems: Vec<Problem>) -> Self {
        Self { source, problems }
    }

    pub(super) fn unreadable(file: &Path, cause: &std::io::Error) -> Self {
        let source = Source { name: file.display().to_string(), ..Source::default() };
        Self::new(Arc::new(source), vec![Problem::new(format!("cannot be read: {cause}"))])
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Every problem with its text underlined, for a terminal.
    pub fn render(&self) -> String {
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_context_lines(1);
        let mut text = String::new();
        for problem in &self.problems {
            let report = Report::new(problem, &self.source);
            if handler.render_report(&mut text, &report).is_err() {
                text.push_str(&self.line(problem));
            }
            text.push('\n');
        }
        text
    }

    /// `file:line:column: what is wrong (what would be right)`
    fn line(&self, problem: &Problem) -> String {
        let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        let place = problem.places.first().and_then(|(place, _)| place.span(&self.source));
        let (line, column) = place.map(|span| self.source.position(span.start)).unzip();
        let position = line.zip(column).map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
        format!("{}{position}: {}{help}", self.source.name, problem.message)
    }
}

impl Problem {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), places: Vec::new(), help: None }
    }

    /// Points at the value of a key; the word stands under it.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>, word: impl Into<String>) -> Self {
        self.places.push((Place::Path(path.into()), word.into()));
        self
    }

    #[must_use]
    pub(super) fn at_bytes(mut self, span: Range<usize>) -> Self {
        self.places.push((Place::Bytes(span), String::new()));
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Place {
    fn span(&self, source: &Source) -> Option<Range<usize>> {
        match self {
            Self::Path(path) => source.place(path),
            Self::Bytes(span) => Some(source.narrow(span)),
        }
    }
}

/// One line a problem would be too many for a log: the first one, and how many follow.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.problems.first().map(|problem| self.line(problem).replace('\n', " "));
        f.write_str(&first.unwrap_or_else(|| self.source.name.clone()))?;
        match self.problems.len() {
            0 | 1 => Ok(()),
            count => write!(f, " (and {} more)", count - 1),
        }
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(|problem| self.line(problem)).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// A problem as `miette` wants it.
#[derive(Debug)]
struct Report<'a> {
    problem: &'a Problem,
    text: NamedSource<String>,
    labels: Vec<LabeledSpan>,
}

impl<'a> Report<'a> {
    fn new(problem: &'a Problem, source: &Source) -> Self {
        let label = |(place, word): &(Place, String)| {
            let span = place.span(source)?;
            let word = Some(word.clone()).filter(|word| !word.is_empty()).or_else(|| Some("here".to_owned()));
            Some(LabeledSpan::new_with_span(word, span))
        };
        let labels = problem.places.iter().filter_map(label).collect();
        Self { problem, text: NamedSource::new(&source.name, source.text.clone()), labels }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without a label nothing else would name the file.
        match self.labels.is_empty() {
            true => write!(f, "{}: {}", self.text.name(), self.problem.message),
            false => f.write_str(&self.problem.message),
        }
    }
}

impl std::error::Error for Report<'_> {}

impl Diagnostic for Report<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.text)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}
