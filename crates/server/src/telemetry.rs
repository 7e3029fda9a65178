//! Log lines: where they go and in which form.
//!
//! Logs go to standard error, so that standard output holds only what a person started the program for.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Logging};

/// Starts logging. `RUST_LOG`, where it is set, refines the configured level. Logging never stops a node: if somebody
/// in the same process logs already, that stays.
pub(crate) fn start(logging: Logging) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::from_level(logging.level).into())
        .from_env_lossy();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()));
    let _already_logging: Result<(), _> = match logging.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
