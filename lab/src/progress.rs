//! What a user sees while a lab comes up: a line that moves on a terminal, lines that stay elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::{LabError, Result};

/// Shows progress, and says whether the user still wants it. Clones show and say the same.
#[derive(Clone, Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    plain: bool,
    started: Instant,
    cancelled: Arc<AtomicBool>,
}

impl Progress {
    /// Progress on standard error, of the kind that suits it.
    #[must_use]
    pub fn new(terminal: bool) -> Self {
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // The default style stays when the template is not understood.
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            bar,
            plain: !terminal,
            ..Self::silent()
        }
    }

    /// Progress that nobody sees.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            bar: None,
            plain: false,
            started: Instant::now(),
            cancelled: Arc::default(),
        }
    }

    /// Says what is under way.
    pub fn doing(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// Says what is done.
    pub fn done(&self, what: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        let line = format!("{seconds:5.1}s  {what}");
        match &self.bar {
            Some(bar) => bar.println(line),
            None if self.plain => eprintln!("{line}"),
            None => {}
        }
    }

    /// Clears the moving line.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Asks whoever works to stop soon; to be called from a signal's task.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether to go on.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            Err(LabError::Interrupted)
        } else {
            Ok(())
        }
    }
}
