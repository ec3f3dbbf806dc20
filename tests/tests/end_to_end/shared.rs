//! Systems for the claims that only call them and change nothing about them.

use harness::{Shared, System};

static USUAL: Shared = Shared::new(System::builder);
static WITH_TOKENS: Shared = Shared::new(|| System::builder().tokens());

/// Runs a claim on the shared system, beside others.
pub(crate) fn on_shared_system(claim: impl AsyncFnOnce(&System)) {
    USUAL.claim(claim);
}

/// The same on one whose services ask for tokens.
pub(crate) fn on_system_with_tokens(claim: impl AsyncFnOnce(&System)) {
    WITH_TOKENS.claim(claim);
}
