//! Every thread and task of the server is in the list of `shell/src/runtime/supervisor.rs`, or here with the reason why not.

use std::fs;
use std::path::Path;

/// The files of the server that start a thread or a task, how often, and why it is not unwatched.
const STARTED: [(&str, usize, &str); 8] = [
    ("admin/socket.rs", 1, "one connection of an operator: its panic ends only this connection"),
    ("cli/serve.rs", 1, "prints one line and ends"),
    ("runtime/signals.rs", 1, "watched"),
    ("runtime/supervisor.rs", 1, "watches the task that it starts"),
    ("runtime/threads.rs", 1, "watched"),
    ("server/accept.rs", 2, "one connection each: a panic ends only this connection"),
    ("store/lmdb/store.rs", 1, "watched, for each thread of the store"),
    ("store/redis/store.rs", 1, "watched, for each thread of the store"),
];

#[test]
fn every_thread_and_task_is_listed() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shell/src");
    let mut started = Vec::new();
    count_below(&src, "", &mut started);
    let expected = STARTED.map(|(file, starts, _)| (file.to_owned(), starts));
    assert_eq!(started, expected, "start it with `Supervisor::spawn` or watch it with a `PartGuard`, and list it here");
}

/// Counts the starts in every file, in order. The client is a program of its own, and code below `#[cfg(test)]` runs in none.
fn count_below(folder: &Path, prefix: &str, started: &mut Vec<(String, usize)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("a type").is_dir() {
            // The tests of a long file may lie in a folder.
            if name != "client" && !name.ends_with("/tests") {
                count_below(&entry.path(), &format!("{name}/"), started);
            }
        } else if !name.ends_with("tests.rs") {
            let text = fs::read_to_string(entry.path()).expect("it is text");
            let code = text.split("#[cfg(test)]\nmod tests").next().expect("a first part");
            let code: String = code.split_whitespace().collect();
            let starts = ["thread::Builder::new()", "thread::spawn(", "executor.spawn(", "executor.spawn_many("];
            let starts = starts.iter().map(|start| code.matches(start).count()).sum();
            if starts > 0 {
                started.push((name, starts));
            }
        }
    }
}
