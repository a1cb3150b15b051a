//! Templates of a text's statements, kept beside its analysis until topology, catalog or search path change.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::effects;
use super::snapshot::Snapshot;
use crate::plan::{Access, Surroundings, Template};
use crate::statement::{Analysis, Kind};
use crate::topology::ShardId;

/// The templates last made, for those surroundings. Most texts are used in one database with one search path.
#[derive(Default)]
pub(super) struct Plans(ArcSwapOption<Planned>);

pub(super) struct Planned {
    topology_epoch: u64,
    catalog_epoch: u64,
    database: Arc<str>,
    search_path: Arc<[String]>,
    pub templates: Vec<Template>,
    /// What every execution is, whatever its values: one statement that goes to one shard and leaves no trace in the
    /// session.
    pub plain: Option<(ShardId, Access)>,
}

impl Plans {
    pub(super) fn get(&self, analysis: &Analysis, snapshot: &Snapshot, search_path: &Arc<[String]>) -> Arc<Planned> {
        if let Some(planned) = &*self.0.load()
            && planned.fits(snapshot, search_path)
        {
            return Arc::clone(planned);
        }
        let surroundings = Surroundings { database: &snapshot.database, catalog: &snapshot.catalog, search_path };
        let templates: Vec<Template> =
            analysis.statements.iter().map(|statement| Template::resolve(statement, &surroundings)).collect();
        let planned = Arc::new(Planned {
            plain: plain(analysis, &templates),
            topology_epoch: snapshot.topology.epoch,
            catalog_epoch: snapshot.catalog.epoch,
            database: Arc::clone(&snapshot.name),
            search_path: Arc::clone(search_path),
            templates,
        });
        self.0.store(Some(Arc::clone(&planned)));
        planned
    }
}

impl Planned {
    fn fits(&self, snapshot: &Snapshot, search_path: &Arc<[String]>) -> bool {
        self.topology_epoch == snapshot.topology.epoch
            && self.catalog_epoch == snapshot.catalog.epoch
            && (Arc::ptr_eq(&self.database, &snapshot.name) || self.database == snapshot.name)
            && (Arc::ptr_eq(&self.search_path, search_path) || self.search_path == *search_path)
    }
}

fn plain(analysis: &Analysis, templates: &[Template]) -> Option<(ShardId, Access)> {
    let ([statement], [template]) = (analysis.statements.as_slice(), templates) else { return None };
    let is_plain = matches!(statement.kind, Kind::Query | Kind::Insert(_) | Kind::Update(_) | Kind::Delete { .. })
        && statement.calls.is_empty();
    let mut effects = Vec::new();
    effects::of(statement, None, &mut effects);
    effects::of_template(template, &mut effects);
    template.fixed().filter(|_| is_plain && effects.is_empty())
}
