//! Progress for people: bars in a terminal, one line a phase elsewhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::log::write_event;
use super::{Colour, LogFormat, Printer, error_width, wrap_after};
use crate::progress::{Event, Phase, Progress, Unit};

/// From this many columns on there is room for a longer bar beside bytes, rate and time.
const ROOMY: usize = 80;

/// Shows events on standard error.
pub struct TerminalProgress {
    printer: Printer,
    bars: MultiProgress,
    running: Mutex<HashMap<Phase, ProgressBar>>,
    applying: AtomicBool,
}

impl TerminalProgress {
    /// Nothing is drawn unless standard error is a terminal.
    pub fn new(printer: Printer) -> Self {
        let target = if printer.draws_bars() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            printer,
            bars: MultiProgress::with_draw_target(target),
            running: Mutex::default(),
            applying: AtomicBool::new(false),
        }
    }

    fn start(&self, phase: Phase, total: Option<u64>, unit: Unit) {
        let bar = match error_width() {
            Some(width) if width < ROOMY => 6,
            _ => 20,
        };
        let template = match (total, unit) {
            (Some(_), Unit::Bytes) => format!(
                "{{prefix:>10}} {{bar:{bar}}} {{decimal_bytes}}/{{decimal_total_bytes}} {{decimal_bytes_per_sec}} {{eta}} left"
            ),
            (Some(_), Unit::Items) => format!("{{prefix:>10}} {{bar:{bar}}} {{pos}}/{{len}}"),
            (None, _) => "{prefix:>10} {spinner} {elapsed}".to_owned(),
        };
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.bars.add(ProgressBar::new(total.unwrap_or(0)));
        bar.set_style(style);
        bar.set_prefix(name(phase));
        bar.enable_steady_tick(Duration::from_millis(120));
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(previous) = running.insert(phase, bar) {
            previous.finish_and_clear();
        }
    }

    fn finish(&self, phase: Phase, summary: &str) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = running.remove(&phase) {
            bar.finish_and_clear();
        }
        if self.printer.shows_progress() {
            let name = Colour::Good.paint(&format!("{:>10}", name(phase)));
            let summary = wrap_after(summary, error_width(), 11);
            self.line(&format!("{name} {summary}"));
        }
    }

    /// Whether files in `dags/` are being changed.
    pub fn is_applying(&self) -> bool {
        self.applying.load(Ordering::SeqCst)
    }

    /// Takes the bars away, also of phases that have not come to their end.
    pub fn clear(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, bar) in running.drain() {
            bar.finish_and_clear();
        }
        let _ = self.bars.clear();
    }

    /// A line that stays, above the bars.
    fn line(&self, text: &str) {
        self.bars.suspend(|| {
            use std::io::Write as _;
            let _ = writeln!(anstream::stderr(), "{text}");
        });
    }
}

impl Progress for TerminalProgress {
    fn report(&self, event: Event) {
        self.watch_applying(&event);
        if self.printer.log_format() == LogFormat::Json {
            self.write(&event);
        } else {
            self.show(event);
        }
    }
}

impl TerminalProgress {
    fn watch_applying(&self, event: &Event) {
        match event {
            Event::Started {
                phase: Phase::Upload,
                ..
            } => self.applying.store(true, Ordering::SeqCst),
            Event::Finished {
                phase: Phase::Verify,
                ..
            } => self.applying.store(false, Ordering::SeqCst),
            _ => {}
        }
    }

    /// For programs.
    fn write(&self, event: &Event) {
        match event {
            Event::Warning(text) => self.printer.warning(text),
            _ if !self.printer.shows_progress() => {}
            Event::Started { phase, total, unit } => write_event(
                "started",
                serde_json::json!({
                    "phase": key(*phase),
                    "total": total,
                    "unit": match unit {
                        Unit::Bytes => "bytes",
                        Unit::Items => "items",
                    },
                }),
            ),
            // A line for every buffer would be more than anybody reads.
            Event::Advanced { .. } => {}
            Event::Output { phase, line } => write_event(
                "output",
                serde_json::json!({ "phase": key(*phase), "line": line }),
            ),
            Event::Finished { phase, summary } => write_event(
                "finished",
                serde_json::json!({ "phase": key(*phase), "summary": summary }),
            ),
        }
    }

    /// For people.
    fn show(&self, event: Event) {
        match event {
            Event::Started { phase, total, unit } => self.start(phase, total, unit),
            Event::Advanced { phase, amount } => {
                let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(bar) = running.get(&phase) {
                    bar.inc(amount);
                }
            }
            Event::Output { line, .. } => self.line(&line),
            Event::Finished { phase, summary } => self.finish(phase, &summary),
            Event::Warning(text) => self.bars.suspend(|| self.printer.warning(&text)),
        }
    }
}

/// A phase's name for programs.
fn key(phase: Phase) -> &'static str {
    match phase {
        Phase::Scan => "scan",
        Phase::Probe => "probe",
        Phase::Tests => "tests",
        Phase::Wheels => "wheels",
        Phase::Engine => "engine",
        Phase::Image => "image",
        Phase::Push => "push",
        Phase::Upload => "upload",
        Phase::Cache => "cache",
        Phase::Verify => "verify",
        Phase::Survey => "survey",
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Scan => "Sources",
        Phase::Probe => "Workflows",
        Phase::Tests => "Tests",
        Phase::Wheels => "Wheels",
        Phase::Engine => "Engine",
        Phase::Image => "Image",
        Phase::Push => "Push",
        Phase::Upload => "DAGs",
        Phase::Cache => "Cache",
        Phase::Verify => "Verify",
        Phase::Survey => "Records",
    }
}
