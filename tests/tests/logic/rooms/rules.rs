//! The rules for files and rooms, and what breaks them.

use std::collections::{BTreeMap, BTreeSet};

use super::source_tree::{Import, SourceTree, is_parent};

/// Entries at the root of `src`, at most.
pub(super) const MAX_ROOT_ENTRIES: usize = 12;

/// Lines of code in one file, at most. Comments, blank lines and `mod tests { … }` do not count.
pub(super) const MAX_CODE_LINES: usize = 500;

/// The rooms that each room imports. A room may also import what those import.
pub(super) type Arrows = &'static [(&'static str, &'static [&'static str])];

pub(super) const CORE_ARROWS: Arrows = &[
    ("session", &["protocol", "token_bucket"]),
    ("protocol", &["ledger"]),
    ("release_tracker", &["ledger"]),
    ("ledger", &["id", "time", "resume_token"]),
    ("connection_limiter", &["token_bucket"]),
    ("token_bucket", &["time"]),
    ("resume_token", &[]),
    ("id", &[]),
    ("time", &[]),
];

pub(super) const SHELL_ARROWS: Arrows = &[
    ("bin", &["cli", "client"]),
    ("cli", &["config", "server", "admin"]),
    ("config", &["net", "auth", "store"]),
    ("server", &["net", "auth", "store"]),
    ("admin", &["store"]),
    ("net", &["runtime"]),
    ("auth", &["runtime"]),
    ("store", &["runtime"]),
    ("client", &["runtime"]),
    ("runtime", &["session_core"]),
    ("session_core", &[]),
];

/// Everything that breaks a rule, one text each.
pub(super) fn violations(tree: &SourceTree, arrows: Arrows) -> Vec<String> {
    let imports = tree.imports();
    let mut violations = Vec::new();
    violations.extend(imports.iter().filter_map(|import| forbidden_import(import, arrows)));
    violations.extend(circles(&imports));
    violations.extend(defining_parents(tree));
    violations.extend(crowded_root(tree));
    violations.extend(long_files(tree));
    violations
}

fn forbidden_import(import: &Import, arrows: Arrows) -> Option<String> {
    let Import { from, line, path, to } = import;
    let (from_room, to_room) = (room(from), room(to));
    // The root of the crate re-exports from any room.
    if from_room == to_room || from_room == "lib" {
        return None;
    }
    let allowed = reachable(from_room, arrows);
    if allowed.contains(to_room) {
        return None;
    }
    let allowed = allowed.into_iter().collect::<Vec<_>>().join(", ");
    Some(format!("{from}:{line}: imports `{path}` of {to}. Rule: `{from_room}` may import only {{{allowed}}}"))
}

/// The first part of a path below `src`.
pub(super) fn room(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn reachable(room: &str, arrows: Arrows) -> BTreeSet<&'static str> {
    let mut reachable = BTreeSet::new();
    let direct = |room: &str| arrows.iter().find(|(from, _)| *from == room).map_or(&[][..], |(_, to)| to);
    let mut next = direct(room).to_vec();
    while let Some(room) = next.pop() {
        if reachable.insert(room) {
            next.extend(direct(room));
        }
    }
    reachable
}

/// One text for each set of files that import one another, with the imports that close the circle.
fn circles(imports: &BTreeSet<Import>) -> Vec<String> {
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Import { from, to, .. } in imports {
        graph.entry(from).or_default().insert(to);
    }
    let reach: BTreeMap<&str, BTreeSet<&str>> = graph.keys().map(|from| (*from, files_after(from, &graph))).collect();
    let reaches = |from: &str, to: &str| reach.get(from).is_some_and(|after| after.contains(to));
    let mut reported = BTreeSet::new();
    let mut circles = Vec::new();
    for from in graph.keys() {
        if !reaches(from, from) || reported.contains(from) {
            continue;
        }
        let members: BTreeSet<&str> = reach[from].iter().copied().filter(|to| reaches(to, from)).collect();
        let inside = imports
            .iter()
            .filter(|import| members.contains(import.from.as_str()) && members.contains(import.to.as_str()));
        let lines: Vec<_> = inside
            .map(|import| format!("\n    {}:{}: `{}` of {}", import.from, import.line, import.path, import.to))
            .collect();
        circles.push(format!("Rule: no files import one another. A circle of {}:{}", members.len(), lines.concat()));
        reported.extend(members);
    }
    circles
}

fn files_after<'a>(from: &'a str, graph: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut after = BTreeSet::new();
    let mut next = vec![from];
    while let Some(from) = next.pop() {
        next.extend(graph.get(from).into_iter().flatten().copied().filter(|to| after.insert(*to)));
    }
    after
}

fn defining_parents(tree: &SourceTree) -> Vec<String> {
    let parents = tree.files().filter(|(path, _)| is_parent(path));
    let definitions = parents.flat_map(|(path, file)| file.definitions.iter().map(move |found| (path, found)));
    definitions
        .map(|(path, found)| {
            let (line, keyword, name) = (found.line, &found.keyword, &found.name);
            format!("{path}:{line}: defines `{keyword} {name}`. Rule: a mod.rs only declares and re-exports")
        })
        .collect()
}

fn crowded_root(tree: &SourceTree) -> Option<String> {
    let entries: BTreeSet<&str> = tree.files().map(|(path, _)| path.split('/').next().unwrap_or(path)).collect();
    (entries.len() > MAX_ROOT_ENTRIES)
        .then(|| format!("{} entries at the root: {entries:?}. Rule: {MAX_ROOT_ENTRIES} at most", entries.len()))
}

fn long_files(tree: &SourceTree) -> Vec<String> {
    let long = tree.files().filter(|(_, file)| file.code_lines > MAX_CODE_LINES);
    long.map(|(path, file)| format!("{path}: {} lines of code. Rule: {MAX_CODE_LINES} at most", file.code_lines))
        .collect()
}
