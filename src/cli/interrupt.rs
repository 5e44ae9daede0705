//! Ctrl-C and termination: the program stops within five seconds and says what that means.
//!
//! Mostly it stops at once, since nothing needs to be undone: what was staged is reclaimed
//! later. Only a deploy that holds the environment ends by itself, within a few seconds: it
//! starts nothing more, waits for what is on its way and gives the environment free. If the
//! network stands still meanwhile, or at a second signal, the program ends at once; then the
//! next deploy has to wait until the hold has run out.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::interruption::Interruption;
use crate::progress::{Event, Progress as _};
use crate::ui::{CommandError, Exit, Printer, TerminalProgress};

/// How long a deploy may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(4);

/// Signals are for the whole process, and so is this.
static INTERRUPTION: LazyLock<Arc<Interruption>> = LazyLock::new(Arc::default);

/// What is raised by a signal, once [`watch`] has begun.
pub(super) fn interruption() -> Arc<Interruption> {
    Arc::clone(&INTERRUPTION)
}

/// Watches for signals on a thread of its own, for as long as the program runs: work that keeps
/// the main thread busy must not delay it.
pub(super) fn watch(printer: Printer, progress: Arc<TerminalProgress>) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        if runtime.block_on(wait(&progress)).is_err() {
            return;
        }
        let failure = message(INTERRUPTION.is_heeded());
        progress.clear();
        printer.failure(&failure);
        std::process::exit(i32::from(failure.exit().code()));
    });
}

/// Returns when the program has to be ended from here.
async fn wait(progress: &TerminalProgress) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    either(&mut terminate, &mut interrupt).await;
    INTERRUPTION.raise();
    if !INTERRUPTION.is_heeded() {
        return Ok(());
    }
    progress.report(Event::Warning(
        "stopping as soon as what is on its way has arrived; a second signal stops at once"
            .to_owned(),
    ));
    // Usually the program ends before this does.
    tokio::select! {
        () = tokio::time::sleep(PATIENCE) => {}
        () = either(&mut terminate, &mut interrupt) => {}
    }
    Ok(())
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
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
