//! The rooms of `core/src` and `shell/src`: which may import which, that no files import one another, that a `mod.rs`
//! defines nothing, and how long a file may be. Code under `#[cfg(test)]` is free of these rules.
//!
//! Alone: `cargo test -p tests --test logic rooms`

mod rules;
mod source_tree;
mod source_file;
mod lexer;

use std::path::Path;

use rules::{Arrows, CORE_ARROWS, MAX_CODE_LINES, MAX_ROOT_ENTRIES, SHELL_ARROWS, long_files, violations};
use source_file::SourceFile;
use source_tree::SourceTree;

#[test]
fn core_keeps_the_rules_of_rooms() {
    check("session_core", "core/src", CORE_ARROWS);
}

#[test]
fn shell_keeps_the_rules_of_rooms() {
    check("shell", "shell/src", SHELL_ARROWS);
}

#[test]
fn test_files_stay_short() {
    for folder in ["tests/src", "tests/tests"] {
        let long = long_files(&read("tests", folder));
        assert!(long.is_empty(), "below {folder}:\n\n{}\n", long.join("\n"));
    }
}

fn read(crate_name: &str, folder: &str) -> SourceTree {
    SourceTree::read(crate_name, &Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder))
}

fn check(crate_name: &str, src: &str, arrows: Arrows) {
    let tree = read(crate_name, src);
    assert!(tree.imports().len() > 20, "{src} has imports, so the test must find them");
    let violations = violations(&tree, arrows);
    assert!(violations.is_empty(), "below {src}:\n\n{}\n", violations.join("\n"));
}

/// What is wrong with made-up files of the shell.
fn shell_violations(files: &[(&str, &str)]) -> Vec<String> {
    violations(&SourceTree::new("shell", files.iter().copied()), SHELL_ARROWS)
}

fn assert_one_violation(files: &[(&str, &str)], expected: &str) {
    let found = shell_violations(files);
    assert!(found.len() == 1 && found[0].contains(expected), "expected {expected:?}, found {found:#?}");
}

fn assert_no_violation(files: &[(&str, &str)]) {
    assert_eq!(shell_violations(files), [""; 0]);
}

const LISTENER: (&str, &str) = ("net/listener.rs", "pub struct Listener;");

#[test]
fn downward_import_passes() {
    let table = ("config/table.rs", "use crate::net::listener::Listener;\nuse session_core::UserId;");
    assert_no_violation(&[table, LISTENER]);
}

#[test]
fn upward_import_is_caught() {
    let table = ("config/table.rs", "pub struct Config;");
    let listener = ("net/listener.rs", "\nuse crate::config::table::Config;");
    assert_one_violation(
        &[table, listener],
        "net/listener.rs:2: imports `crate::config::table::Config` of config/table.rs",
    );
}

#[test]
fn upward_path_in_an_expression_is_caught() {
    let table = ("config/table.rs", "pub fn load() {}");
    let listener = ("net/listener.rs", "fn listen() { crate::config::table::load() }");
    assert_one_violation(&[table, listener], "`crate::config::table::load`");
}

#[test]
fn upward_import_through_super_is_caught() {
    let files = [("net/tls.rs", "use super::super::auth::{keys::{self, Key}};"), ("auth/keys.rs", "pub struct Key;")];
    let found = shell_violations(&files);
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn upward_import_through_a_reexport_names_the_definer() {
    let config = ("config/mod.rs", "mod table;\npub use table::{Config as Configuration};");
    let table = ("config/table.rs", "pub struct Config;");
    let listener = ("net/listener.rs", "use crate::config::Configuration;");
    assert_one_violation(&[config, table, listener], "of config/table.rs");
}

#[test]
fn upward_glob_import_is_caught() {
    let config = ("config/mod.rs", "mod table;\npub use table::*;");
    let table = ("config/table.rs", "pub struct Config;");
    let listener = ("net/listener.rs", "use crate::config::*;\nfn listen(_: &Config) {}");
    assert_one_violation(&[config, table, listener], "`crate::config::*` of config/table.rs");
}

#[test]
fn import_of_the_core_passes_below_every_room() {
    let files = ["bin/server.rs", "cli/serve.rs", "client/url.rs", "runtime/clock.rs", "store/api.rs"];
    for file in files {
        assert_no_violation(&[(file, "use session_core::{Timestamp, ledger::Outcome};")]);
    }
}

#[test]
fn room_without_arrows_is_caught() {
    assert_one_violation(
        &[("http/body.rs", "use crate::net::listener::Listener;"), LISTENER],
        "`http` may import only {}",
    );
}

#[test]
fn circle_of_two_files_is_caught() {
    let files = [
        ("net/a.rs", "use super::b::B;\npub struct A;"),
        ("net/b.rs", "pub struct B;\nfn f() { super::a::A; }"),
        ("net/c.rs", "use super::a::A;"),
    ];
    assert_one_violation(
        &files,
        "circle of 2:\n    net/a.rs:1: `super::b::B` of net/b.rs\n    net/b.rs:2: `super::a::A` of net/a.rs",
    );
}

#[test]
fn circle_through_reexports_is_caught() {
    let files = [
        ("net/mod.rs", "mod a;\nmod b;\nmod c;\npub use {a::A, b::B, c::C};"),
        ("net/a.rs", "use super::B;\npub struct A;"),
        ("net/b.rs", "use super::C;\npub struct B;"),
        ("net/c.rs", "use crate::net::A;\npub struct C;"),
    ];
    assert_one_violation(&files, "circle of 3");
}

#[test]
fn circle_of_parent_and_child_is_caught() {
    let files = [
        ("store/record.rs", "mod encoding;\npub struct Record;\nfn f() { encoding::encode() }"),
        ("store/record/encoding.rs", "use super::Record;\npub fn encode() {}"),
    ];
    assert_one_violation(&files, "circle of 2");
}

#[test]
fn parent_that_reexports_is_no_circle() {
    let files = [
        ("net/mod.rs", "mod a;\nmod b;\npub use a::A;\npub use b::*;"),
        ("net/a.rs", "pub struct A;"),
        ("net/b.rs", "use super::A;\npub struct B;"),
    ];
    assert_no_violation(&files);
}

#[test]
fn imports_of_tests_pass() {
    let files = [
        ("net/mod.rs", "#[cfg(test)]\nmod testing;\nmod listener;"),
        ("net/testing.rs", "use crate::cli::serve::serve;"),
        ("net/listener.rs", "#[cfg(test)]\nmod tests { use crate::cli::serve::serve; }"),
        ("cli/serve.rs", "pub fn serve() {}"),
    ];
    assert_no_violation(&files);
}

#[test]
fn words_in_comments_and_strings_pass() {
    let text = "// use crate::cli::A;\n/* use crate::cli::A; /* */ */\nconst A: &str = r#\"\nuse crate::cli::A;\"#;\n";
    assert_no_violation(&[
        ("net/listener.rs", text),
        ("cli/mod.rs", "pub mod serve;"),
        ("cli/serve.rs", "pub struct A;"),
    ]);
}

#[test]
fn defining_mod_rs_is_caught() {
    let definitions = [
        "pub struct A;",
        "pub(crate) enum A { B }",
        "pub const fn a() {}",
        "unsafe trait A {}",
        "impl A for B {}",
        "const A: [u8; 1] = { [0] };",
        "static A: u8 = 0;",
        "type A = u8;",
        "macro_rules! a { () => {} }",
        "either! { A, B }",
        "pub mod inline { pub struct A; }",
    ];
    for definition in definitions {
        let parent = format!("//! Rooms.\nmod a;\n#[derive(Debug)]\n{definition}\npub use a::*;");
        assert_one_violation(&[("net/mod.rs", &parent)], "net/mod.rs:4: defines");
    }
}

#[test]
fn declaring_mod_rs_passes() {
    let parent = "#![no_std]\nextern crate alloc;\n/// It.\npub mod a;\n#[cfg(test)]\nmod tests { fn a() {} }\npub use a::{A, b::*};";
    assert_no_violation(&[("net/mod.rs", parent)]);
}

#[test]
fn crowded_root_is_caught() {
    let names: Vec<_> = (0..=MAX_ROOT_ENTRIES).map(|number| format!("file_{number}.rs")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert_one_violation(&files, "13 entries at the root");
    assert_no_violation(&files[1..]);
}

#[test]
fn long_file_is_caught() {
    let comments = "\n// why\n/* why\n*/\n".repeat(200);
    let tests = "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n".repeat(200);
    let code = "fn f() {}\n".repeat(MAX_CODE_LINES);
    assert_no_violation(&[("net/a.rs", &(comments.clone() + &tests + &code))]);
    assert_one_violation(&[("net/a.rs", &(comments + &tests + &code + "fn f() {}\n"))], "net/a.rs: 501 lines of code");
}

#[test]
fn code_lines_include_the_lines_of_literals() {
    let text = "const A: &str = \"a\n\n  b\\\n c\";\n\nconst B: char = '\"';\nfn f<'a>(_: &'a str) {\n}\n";
    assert_eq!(SourceFile::parse(text).code_lines, 7);
}
