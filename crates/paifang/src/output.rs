//! What the program says: results to standard output, everything about them to standard error.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// Writes to standard output.
pub(crate) fn out(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_ref())?;
    stdout.flush()?;
    Ok(())
}

/// Writes a line to standard error. Nobody can be told when that fails.
pub(crate) fn tell(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Says why the program ends: one sentence, its causes after it.
pub(crate) fn error(error: &anyhow::Error) {
    tell(format_args!("error: {error:#}"));
}

/// Whether an error says that nobody reads our output any more.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// `count thing`, `count things`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {thing}s"),
    }
}
