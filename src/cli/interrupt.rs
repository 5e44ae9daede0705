//! Ctrl-C and termination: the program stops at once and says what that means.
//!
//! Nothing needs to be undone: what was staged is reclaimed later, and a deploy that has begun
//! to change `dags/` is finished by the next one. So there is no waiting, only a message.

use std::sync::Arc;

use crate::ui::{CommandError, Exit, Printer, TerminalProgress};

/// Watches for signals on a thread of its own, for as long as the program runs: work that keeps
/// the main thread busy must not delay it.
pub(super) fn watch(printer: Printer, progress: Arc<TerminalProgress>) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        let Ok(runtime) = runtime else { return };
        if runtime.block_on(signal()).is_err() {
            return;
        }
        let failure = message(progress.is_applying());
        progress.clear();
        printer.failure(&failure);
        std::process::exit(i32::from(failure.exit().code()));
    });
}

async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn message(applying: bool) -> CommandError {
    if applying {
        CommandError::new(Exit::Interrupted, "interrupted while applying")
            .why("some files in dags/ may be new and others old; `forebay status` shows which")
            .next(
                "run `forebay deploy` again: once this deploy's hold has run out (60 s unless FOREBAY_LEASE_SECONDS says otherwise) it finishes what was begun; `forebay abort` takes it back",
            )
    } else {
        CommandError::new(Exit::Failed, "interrupted; nothing visible was changed")
            .next("run the command again: what was built and sent is not built or sent twice")
    }
}
