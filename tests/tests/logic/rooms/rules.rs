//! The rules for files and rooms, and what breaks them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
    ("leaving_tracker", &["id", "time"]),
    ("cluster", &["ledger"]),
    ("ledger", &["id", "time"]),
    ("connection_limiter", &["id", "token_bucket"]),
    ("token_bucket", &["time"]),
    ("fair_queue", &[]),
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

/// The shortest circle of each set of files that import one another.
fn circles(imports: &BTreeSet<Import>) -> Vec<String> {
    let mut graph: BTreeMap<&str, BTreeMap<&str, &Import>> = BTreeMap::new();
    for import in imports {
        graph.entry(&import.from).or_default().entry(&import.to).or_insert(import);
    }
    let mut shortest: Vec<_> = graph.keys().filter_map(|start| circle_of(start, &graph)).collect();
    shortest.sort_by_key(Vec::len);
    let mut reported = BTreeSet::new();
    let mut circles = Vec::new();
    for circle in shortest {
        // A longer circle through a reported file may vanish with the reported one.
        if circle.iter().any(|import| reported.contains(&import.from)) {
            continue;
        }
        reported.extend(circle.iter().map(|import| &import.from));
        let lines =
            circle.iter().map(|Import { from, line, path, to }| format!("\n    {from}:{line}: `{path}` of {to}"));
        let lines = lines.collect::<String>();
        circles.push(format!("Rule: no files import one another. A circle of {}:{lines}", circle.len()));
    }
    circles
}

/// The shortest way from a file back to itself.
fn circle_of<'a>(start: &str, graph: &BTreeMap<&str, BTreeMap<&'a str, &'a Import>>) -> Option<Vec<&'a Import>> {
    let mut visited = BTreeSet::new();
    let mut paths = VecDeque::from([(start, Vec::new())]);
    while let Some((from, path)) = paths.pop_front() {
        for (&to, &import) in graph.get(from).into_iter().flatten() {
            let path = [&path[..], &[import]].concat();
            if to == start {
                return Some(path);
            }
            if visited.insert(to) {
                paths.push_back((to, path));
            }
        }
    }
    None
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

pub(super) fn long_files(tree: &SourceTree) -> Vec<String> {
    let long = tree.files().filter(|(_, file)| file.code_lines > MAX_CODE_LINES);
    long.map(|(path, file)| format!("{path}: {} lines of code. Rule: {MAX_CODE_LINES} at most", file.code_lines))
        .collect()
}
