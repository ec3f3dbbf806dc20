//! One system for the claims that only call it and change nothing about it.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::LazyLock;

use futures_util::FutureExt;
use harness::{Builder, System};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// Lives as long as the test program: the system's processes belong to it. The harness's guard ends
/// them when the program ends.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new().expect("a runtime can be started"));
static SYSTEM: OnceCell<System> = OnceCell::const_new();

static WITH_TOKENS: OnceCell<System> = OnceCell::const_new();

/// Runs a claim on the shared system, beside others. If it fails, shows the ends of the logs.
pub(crate) fn on_shared_system(claim: impl AsyncFnOnce(&System)) {
    on(&SYSTEM, System::builder(), claim);
}

/// The same on one whose services ask for tokens.
pub(crate) fn on_system_with_tokens(claim: impl AsyncFnOnce(&System)) {
    on(&WITH_TOKENS, System::builder().tokens(), claim);
}

fn on(shared: &OnceCell<System>, builder: Builder, claim: impl AsyncFnOnce(&System)) {
    RUNTIME.block_on(async {
        let system = shared
            .get_or_init(async || builder.start().await.expect("the system starts"))
            .await;
        if let Err(panic) = AssertUnwindSafe(claim(system)).catch_unwind().await {
            for process in system.processes() {
                eprintln!("{}\n", process.log().tail());
            }
            resume_unwind(panic);
        }
    });
}
