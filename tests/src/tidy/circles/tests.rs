use super::*;

/// A crate `x` of files, each with its path below `x/src`, `lib.rs` among them.
fn of(files: &[(&str, &str)]) -> Vec<SourceFile> {
    let file =
        |(path, text): &(&str, &str)| SourceFile { path: format!("x/src/{path}"), text: (*text).to_owned() };
    files.iter().map(file).collect()
}

fn found(files: &[(&str, &str)]) -> Vec<String> {
    circles_but(&of(files), &[])
}

/// A crate of two files, `a.rs` with this text and `b.rs`, which uses `A` of `a.rs`.
fn beside_b(a: &str) -> usize {
    let b = "use crate::a::A; pub struct B; pub mod inner { pub struct C; } impl B { pub fn f(_: A) {} }";
    found(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)]).len()
}

#[test]
fn one_direction_is_silent() {
    assert_eq!(beside_b("pub struct A;"), 0);
}

#[test]
fn every_way_to_name_another_file_is_an_import() {
    for a in [
        "use crate::b::B;",
        "use super::b::B;",
        "use crate::{b::{B as Other}};",
        "use crate::b::{self, inner::C};",
        "pub(crate) fn f() { crate::b::B::f(); }",
        "fn f() { use crate::b; let _ = b::B::f; }",
        "use crate::b as other; fn f(_: other::B) {}",
        "use super::b::*; fn f(_: B) {}",
        "macro_rules! m { () => { $crate::b::B } }",
        "fn f() { println!(\"{}\", super::b::B); }",
        "mod inside { use super::super::b::B; }",
        "mod inside { fn f(_: crate::b::inner::C) {} }",
        "fn f(x: &'static str, _: Vec<super::b::B>) {}",
        "#[derive(crate::b::B)] struct X;",
        "impl From<crate::b::B> for A {}",
        "#[cfg(not(test))] use crate::b::B;",
        "#[cfg(any(test, feature = \"x\"))] use crate::b::B;",
    ] {
        assert_eq!(beside_b(&format!("pub struct A; {a}")), 1, "{a}");
    }
}

#[test]
fn what_is_no_import_is_left_alone() {
    for a in [
        "// use crate::b::B;",
        "/// See [`crate::b::B`].\nstruct X;",
        "const X: &str = \"crate::b::B\";",
        "#[cfg(test)] mod tests { use crate::b::B; }",
        "#[cfg(test)] use crate::b::{B, inner::C}; use std::fmt;",
        "#[cfg(all(test, unix))] fn f<T, U>() -> T { crate::b::B } struct X;",
        "struct X { #[cfg(test)] b: crate::b::B, a: A }",
        "use crate::b;",
        "use ::b::B; fn f(_: ::b::B) {}",
        "fn f(x: X) { x.b.B; }",
        "use other::b::B; fn f() { B::g(); }",
    ] {
        assert_eq!(beside_b(&format!("pub struct A; {a}")), 0, "{a}");
    }
}

#[test]
fn code_behind_a_test_item_counts_again() {
    assert_eq!(beside_b("pub struct A; #[cfg(test)] mod tests { use crate::b::B; } use crate::b::B;"), 1);
    assert_eq!(beside_b("pub struct A; #[cfg(test)] use crate::b::B; fn f(_: crate::b::B) {}"), 1);
    assert_eq!(beside_b("#![cfg(test)] pub struct A; use crate::b::B;"), 0);
}

#[test]
fn a_re_export_passes_a_name_on_and_imports_nothing_itself() {
    let queue = "use super::Unit; pub struct Queue;";
    let unit = "pub struct Unit;";
    let files = |parent: &'static str| {
        [
            ("lib.rs", "mod queues;"),
            ("queues/mod.rs", parent),
            ("queues/queue.rs", queue),
            ("queues/unit.rs", unit),
        ]
    };
    assert_eq!(found(&files("mod queue; mod unit; pub use queue::Queue; pub use unit::Unit;")).len(), 0);
    assert_eq!(found(&files("mod queue; mod unit; pub use queue::*; pub use unit::*;")).len(), 0);
    // Passing on is one thing, using another one; and a name of the parent's own is the parent's.
    let used = "mod queue; mod unit; pub use queue::Queue; pub use unit::Unit; pub struct All(Queue);";
    assert_eq!(found(&files(used)).len(), 0);
    let own = "mod queue; mod unit; pub use queue::Queue; pub struct Unit; pub struct All(Queue);";
    assert_eq!(found(&files(own)).len(), 1);
}

#[test]
fn a_re_export_does_not_hide_a_circle() {
    let found = found(&[
        ("lib.rs", "mod a; mod b; mod c; pub use a::A; pub use b::B;"),
        ("a.rs", "pub struct A(crate::B);"),
        ("b.rs", "pub use crate::c::A as Hidden; pub struct B(Hidden);"),
        ("c.rs", "pub use crate::a::A;"),
    ]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("x/src/a.rs -> x/src/b.rs (B), x/src/b.rs -> x/src/a.rs (A)"), "{found:?}");
}

#[test]
fn a_parent_that_only_declares_its_child_does_not_import_it() {
    let child = "use super::Shared;";
    let only = "mod child; pub struct Shared;";
    assert_eq!(found(&[("lib.rs", "mod a;"), ("a.rs", only), ("a/child.rs", child)]).len(), 0);
    let used = "mod child; pub struct Shared; fn f() { child::f(); }";
    assert_eq!(found(&[("lib.rs", "mod a;"), ("a.rs", used), ("a/child.rs", child)]).len(), 1);
}

#[test]
fn a_module_and_an_item_of_one_name_are_two_things() {
    let parent = "mod read; mod other; pub fn read() { other::f(); }";
    let other = "use super::read; pub fn f() { read::Reader; }";
    let files = |other| {
        [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", parent),
            ("a/read.rs", "pub struct Reader;"),
            ("a/other.rs", other),
        ]
    };
    assert_eq!(found(&files(other)).len(), 1, "`use super::read` is the function, too");
    assert_eq!(found(&files("use super::read::Reader; pub fn f() {}")).len(), 0);
}

#[test]
fn the_message_names_the_shortest_circle_and_its_names() {
    let found = found(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::{One, Two};"),
        ("b.rs", "use crate::c::Three;"),
        ("c.rs", "use crate::b::Four; use crate::d::Five;"),
        ("d.rs", "use crate::a::Six;"),
    ]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("x/src/b.rs: 4 files import each other in a circle; the shortest: "),
        "{found:?}"
    );
    assert!(
        found[0].contains("x/src/b.rs -> x/src/c.rs (Three), x/src/c.rs -> x/src/b.rs (Four)."),
        "{found:?}"
    );
}

#[test]
fn each_circle_is_one_complaint() {
    let found = found(&[
        ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
        ("a.rs", "use crate::b::B; use crate::c::C;"),
        ("b.rs", "use crate::a::A;"),
        ("c.rs", "use crate::d::D;"),
        ("d.rs", "use crate::c::C; use crate::e::E;"),
        ("e.rs", "pub struct E;"),
    ]);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn the_exceptions_only_become_fewer() {
    let files =
        of(&[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B;"), ("b.rs", "use crate::a::A;")]);
    let complaints = |excepted| circles_but(&files, excepted);
    assert_eq!(complaints(&[("x/src", 2)]), Vec::<String>::new());
    assert!(complaints(&[("x/src", 3)])[0].contains("lower the number"));
    assert!(complaints(&[("x/src", 1)])[0].contains("mend what was added"));
    assert_eq!(complaints(&[("y/src", 0)]).len(), 1);
    assert!(circles_but(&[], &[("x/src", 1)])[0].contains("take the folder out"));
}

#[test]
fn a_declared_module_without_a_file_is_named() {
    let found = found(&[("lib.rs", "mod gone;")]);
    assert_eq!(found, ["x/src/lib.rs: declares the module gone, whose file is not there"]);
}
