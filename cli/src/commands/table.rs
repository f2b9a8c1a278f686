//! Tables as people and as pipes read them: columns padded with spaces, no frames.

use comfy_table::{Table, presets};

/// Prints rows under a head.
pub(super) fn print<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    for line in table.to_string().lines() {
        say!("{}", line.trim());
    }
}
