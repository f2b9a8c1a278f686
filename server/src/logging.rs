//! What the process says of itself: one line an event, times in RFC 3339 and UTC, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The variable that sets the level, weaker than `--log`.
pub const VARIABLE: &str = "FOLIO_LOG";
/// openraft tells every step of an election at `info`, and at `warn` every try to reach a peer that is
/// down: five lines a second. The crate `raft` logs what matters of both.
const DEFAULT: &str = "info,openraft=error";

/// Starts logging at `level` (`warn`, `folio_server=debug,info`, ...), else as the variable says.
pub fn start(level: Option<&str>) -> anyhow::Result<()> {
    let variable = std::env::var(VARIABLE).ok();
    let (source, wanted) = match (level, &variable) {
        (Some(level), _) => ("--log", level),
        (None, Some(level)) => (VARIABLE, level.as_str()),
        (None, None) => ("the default", DEFAULT),
    };
    let filter = EnvFilter::try_new(wanted).map_err(|error| {
        anyhow::anyhow!("{source}: {wanted:?} is no log level ({error}); try info or debug")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // It would tell a failed write on standard error, which is what failed, and panic: a log on a full disk must
        // not take the node down.
        .log_internal_errors(false)
        .try_init()
        .map_err(|error| anyhow::anyhow!("logging does not start: {error}"))
}
