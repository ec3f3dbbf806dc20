//! Readiness: the process is ready when every registered check says so. Liveness is something
//! else and depends on no peer (see [`crate::admin`]).

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// All checks of the process. Clones share them.
#[derive(Clone, Debug)]
pub struct Health {
    checks: Arc<watch::Sender<BTreeMap<&'static str, bool>>>,
}

/// One reason to be ready or not; starts as not ready. Clones share it.
#[derive(Clone, Debug)]
pub struct Check {
    name: &'static str,
    health: Health,
}

impl Health {
    /// Without any check the process counts as ready.
    pub fn new() -> Self {
        Self {
            checks: Arc::new(watch::Sender::new(BTreeMap::new())),
        }
    }

    /// Registers a check, not ready until it is set. The same name gives the same check.
    pub fn check(&self, name: &'static str) -> Check {
        self.checks.send_if_modified(|checks| {
            let known = checks.len();
            checks.entry(name).or_insert(false);
            checks.len() != known
        });
        Check {
            name,
            health: self.clone(),
        }
    }

    /// Whether every registered check is ready.
    pub fn is_ready(&self) -> bool {
        self.checks.borrow().values().all(|ready| *ready)
    }

    /// Each check by name.
    pub fn checks(&self) -> BTreeMap<&'static str, bool> {
        self.checks.borrow().clone()
    }

    /// Tells of every change, for those who mirror readiness.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<&'static str, bool>> {
        self.checks.subscribe()
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Check {
    /// Says whether this is ready. Logs when it changes.
    pub fn set(&self, ready: bool) {
        let changed = self.health.checks.send_if_modified(|checks| {
            let before = checks.insert(self.name, ready);
            before != Some(ready)
        });
        if changed && ready {
            tracing::info!(check = self.name, "ready");
        } else if changed {
            tracing::warn!(check = self.name, "not ready");
        }
    }
}
