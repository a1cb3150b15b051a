//! What is written out in a statement before it is planned: the queries of views over sharded tables, so that their tables
//! are found, and forms that say the same as others.

use super::Template;
use super::relations::{Class, Resolved};
use super::rewrite::Splice;
use super::through::Through;
use crate::statement::{Kind, Respelling, Statement, Tokens, quoted_name};

/// A piece of a text that is to be written otherwise.
#[derive(Debug)]
pub(super) enum Place {
    /// A view's name in a FROM, and its query in parentheses.
    View {
        tokens: Tokens,
        words: String,
        /// Its schema and name, where columns are named by them.
        named: Option<(String, String)>,
    },
    /// A table whose columns get other names: `t AS u(a, b)`.
    Renamed(Tokens),
    /// A view that is written.
    Through(Through),
    /// See [`Respelling`]; the statement begins at `start`.
    Respelled { respelling: Respelling, start: u32 },
}

/// Where a statement reads views over sharded tables, and the like. One that names its shard means the view that is there.
pub(super) fn places(statement: &Statement, resolved: &[Resolved]) -> Vec<Place> {
    let is_placed = statement.hints.shard.is_some() || statement.hints.key.is_some();
    let names_matter = names_matter(resolved);
    let relation = |known: &Resolved| &statement.blocks[known.block].relations[known.relation];
    let place = |known: &Resolved| {
        let relation = relation(known);
        if relation.written {
            let is_view = matches!(known.class, Class::View) && !is_placed;
            return if is_view { Through::new(statement, known).map(Place::Through) } else { None };
        }
        if !matches!(known.class, Class::View) || is_placed {
            return relation.place.filter(|_| relation.renames && names_matter).map(Place::Renamed);
        }
        let query = known.catalog.as_ref()?.definition.as_ref()?;
        let (alias, named) = match (relation.aliased, &known.catalog) {
            (false, Some(view)) => {
                (format!(" AS {}", quoted_name(&relation.alias)), Some((view.schema.clone(), view.name.clone())))
            }
            _ => (String::new(), None),
        };
        Some(Place::View { tokens: relation.place?, words: format!("({query}){alias}"), named })
    };
    let reads_shards = !is_placed && resolved.iter().any(|known| known.sharded().is_some());
    let is_whole = matches!(statement.kind, Kind::ModifyingQuery { .. });
    let is_apt = |respelling: &Respelling| is_whole || matches!(respelling, Respelling::Tables(_));
    let respelling = statement.respelling.clone().filter(|respelling| reads_shards && is_apt(respelling));
    let start = statement.tokens.start;
    let respelled = respelling.map(|respelling| Place::Respelled { respelling, start });
    resolved.iter().filter_map(place).chain(respelled).collect()
}

/// What columns are called is looked at. Where it is not, the server alone knows what a row with renamed columns is.
pub(super) fn names_matter(resolved: &[Resolved]) -> bool {
    resolved.iter().any(|known| matches!(known.class, Class::Sharded(_) | Class::Reference | Class::View))
}

/// The text with all of these written out, if its statements have any; what comes of it may have others.
pub fn written_out(text: &str, templates: &[Template]) -> Option<String> {
    let mut places = templates.iter().flat_map(|template| &template.views).peekable();
    places.peek()?;
    let mut splice = Splice::new(text);
    places.for_each(|place| place.write(&mut splice));
    Some(splice.finish())
}

impl Place {
    fn write(&self, splice: &mut Splice<'_>) {
        match self {
            Self::View { tokens, words, named } => {
                splice.replace(*tokens, words.clone());
                if let Some((schema, name)) = named {
                    splice.drop_schema(schema, name);
                }
            }
            Self::Through(through) => through.write(splice),
            Self::Renamed(tokens) => {
                let table = splice.words(*tokens);
                splice.replace(*tokens, format!("(SELECT * FROM {table})"));
            }
            Self::Respelled { respelling: Respelling::With { with, source }, .. } => {
                let words = format!("{} ", splice.words(*with));
                splice.replace(*with, "");
                splice.insert_before(*source, words);
            }
            Self::Respelled { respelling: Respelling::Tables(tables), .. } => {
                for &start in tables {
                    splice.replace(Tokens { start, end: start + 1 }, "SELECT * FROM");
                }
            }
            Self::Respelled { respelling: Respelling::Into { into, create }, start } => {
                splice.insert_before(*start, create.clone());
                splice.replace(*into, "");
            }
        }
    }
}
