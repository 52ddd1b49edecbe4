//! Where log lines go: to standard error, filtered by level and module.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Logs what `filter` lets through, or else everything up to `level`.
pub(crate) fn start(filter: Option<Targets>, level: LevelFilter) {
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_filter(filter);
    // It fails only if there is a subscriber already, and then that one serves.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}
