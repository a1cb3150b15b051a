//! Views over sharded tables: written out in the statement that names them, so that their tables are found.

use super::Template;
use super::relations::{Class, Resolved};
use super::rewrite::Splice;
use crate::statement::{Statement, Tokens, quoted_name};

/// A view's name in a FROM, and its query in parentheses.
#[derive(Debug)]
pub(super) struct Place {
    tokens: Tokens,
    words: String,
    /// Its schema and name, where columns are named by them.
    named: Option<(String, String)>,
}

/// Where a statement reads views over sharded tables. One that names its shard means the view that is there.
pub(super) fn places(statement: &Statement, resolved: &[Resolved]) -> Vec<Place> {
    let is_placed = statement.hints.shard.is_some() || statement.hints.key.is_some();
    let views = resolved.iter().filter(|known| matches!(known.class, Class::View) && !known.written && !is_placed);
    let place = |known: &Resolved| {
        let relation = &statement.blocks[known.block].relations[known.relation];
        let query = known.catalog.as_ref()?.definition.as_ref()?;
        let (alias, named) = match (relation.aliased, &known.catalog) {
            (false, Some(view)) => {
                (format!(" AS {}", quoted_name(&relation.alias)), Some((view.schema.clone(), view.name.clone())))
            }
            _ => (String::new(), None),
        };
        Some(Place { tokens: relation.place?, words: format!("({query}){alias}"), named })
    };
    views.filter_map(place).collect()
}

/// The text with the views that its statements name written out, if they name any; those may name others.
pub fn written_out(text: &str, templates: &[Template]) -> Option<String> {
    let mut places = templates.iter().flat_map(|template| &template.views).peekable();
    places.peek()?;
    let mut splice = Splice::new(text);
    for Place { tokens, words, named } in places {
        splice.replace(*tokens, words.clone());
        if let Some((schema, name)) = named {
            splice.drop_schema(schema, name);
        }
    }
    Some(splice.finish())
}
