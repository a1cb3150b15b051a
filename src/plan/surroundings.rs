//! Where a statement is executed.

use crate::catalog::Catalog;
use crate::topology::Database;

/// What a statement means where it is executed.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    pub database: &'a Database,
    pub catalog: &'a Catalog,
    pub search_path: &'a [String],
}
