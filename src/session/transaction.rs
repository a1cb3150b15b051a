//! Where a client stands between two units of work.

use std::collections::BTreeMap;

use super::lent::Lent;
use super::settings::Change;

/// A transaction block, as the client sees it.
pub(super) enum Transaction {
    Idle,
    /// BEGIN was answered here; no server is chosen before a statement needs one.
    Begun(Begun),
    Open(Box<Open>),
    /// Only the end of the block may pass. No connection if there was none or it was lost; else its server does not
    /// know yet that the block has failed.
    Failed(Option<Box<Open>>),
}

/// Statements that wait for a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Begun {
    /// BEGIN, and what was answered here since: SET TRANSACTION, SET LOCAL, SAVEPOINT.
    pub texts: Vec<String>,
    pub read_only: bool,
    pub serializable: bool,
}

impl Begun {
    /// A BEGIN of which each statement reads what is current, and nothing since.
    pub(super) fn is_plain(&self) -> bool {
        let text = self.texts.first().map(|text| text.to_ascii_lowercase());
        self.texts.len() == 1 && text.is_some_and(|text| !text.contains("isolation"))
    }
}

pub(super) struct Open {
    pub lent: Lent,
    /// Something ran that is not a proven read.
    pub wrote: bool,
    /// Nothing ran but reads, each of what was current.
    pub reads_plainly: bool,
    /// Settings changed inside the block, for the connection's own account when it commits.
    pub changes: Vec<Change>,
    /// The connection knows already that the unit made its server forget all prepared statements.
    pub forgot: bool,
    /// ParameterStatus messages since the block began.
    pub heard: Vec<(String, String)>,
}

/// Values of ParameterStatus that a client was told, shared while they are the log-in's.
pub(super) type Reported = std::sync::Arc<BTreeMap<String, String>>;
