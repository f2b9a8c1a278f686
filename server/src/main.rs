//! The binary `folio`.

fn main() {}
