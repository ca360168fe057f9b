//! Which file of a crate imports which. A re-export in a `mod.rs` or `lib.rs` counts as the file that defines the item.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::source_file::{ImportedPath, SourceFile};

/// The sources of one crate, by path below its `src`.
pub(super) struct SourceTree {
    /// `session_core` or `shell`.
    crate_name: String,
    files: BTreeMap<String, SourceFile>,
    /// The path of each module of the library.
    modules: BTreeMap<Module, String>,
}

/// One file needs another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Import {
    pub(super) from: String,
    pub(super) line: usize,
    /// The path as the source names it.
    pub(super) path: String,
    /// The file that defines what the path names.
    pub(super) to: String,
}

type Module = Vec<String>;

impl SourceTree {
    /// From paths below `src` and their texts.
    pub(super) fn new<'a>(crate_name: &str, sources: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut files: BTreeMap<_, _> =
            sources.into_iter().map(|(path, text)| (path.to_owned(), SourceFile::parse(text))).collect();
        let tests: BTreeSet<Module> = files
            .iter()
            .flat_map(|(path, file)| file.test_modules.iter().map(|name| child(&module_of(path), name)))
            .collect();
        // Files that only tests have may import what they like.
        for (path, file) in &mut files {
            let module = module_of(path);
            if (1..=module.len()).any(|length| tests.contains(&module[..length])) {
                file.imports.clear();
                file.definitions.clear();
                file.words.clear();
            }
        }
        let library = files.keys().filter(|path| !path.starts_with("bin/"));
        let modules = library.map(|path| (module_of(path), path.clone())).collect();
        Self { crate_name: crate_name.to_owned(), files, modules }
    }

    /// Reads every `.rs` file below `src`.
    pub(super) fn read(crate_name: &str, src: &Path) -> Self {
        let mut sources = Vec::new();
        read_below(src, "", &mut sources);
        Self::new(crate_name, sources.iter().map(|(path, text)| (path.as_str(), text.as_str())))
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &SourceFile)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// Every import of this crate's own files, and of `session_core`, whose file is then called `session_core`.
    pub(super) fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (from, file) in &self.files {
            for import in &file.imports {
                let path = import.segments.join("::") + if import.is_glob { "::*" } else { "" };
                for to in self.targets(from, file, import) {
                    if to != *from {
                        imports.insert(Import { from: from.clone(), line: import.line, path: path.clone(), to });
                    }
                }
            }
        }
        imports
    }

    fn targets(&self, from: &str, file: &SourceFile, import: &ImportedPath) -> Vec<String> {
        let Some(path) = self.absolute(from, file, import) else { return Vec::new() };
        if path.first().is_some_and(|first| first == "::session_core") {
            return vec!["session_core".to_owned()];
        }
        if import.is_glob {
            let names = file.words.iter().map(|word| child(&path, word));
            return names.filter_map(|name| self.definer(&name)).collect();
        }
        let (nearest, _) = self.nearest_file(&path);
        self.definer(&path).or_else(|| (!is_parent(nearest)).then(|| nearest.to_owned())).into_iter().collect()
    }

    /// The path from the root of the crate. `None` if it leads out of the crate, or into the file itself.
    fn absolute(&self, from: &str, file: &SourceFile, import: &ImportedPath) -> Option<Module> {
        let mut module = module_of(from);
        module.extend(import.inline.iter().cloned());
        let mut segments = import.segments.iter();
        let first = segments.next()?;
        match first.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => drop(module.pop()),
            name if name == "session_core" && self.crate_name != "session_core" => {
                return Some(vec!["::session_core".to_owned()]);
            }
            // The library, from `bin/`.
            name if name == self.crate_name => module.clear(),
            name if file.modules.iter().any(|child| child == name) => module.push(name.to_owned()),
            // A module that a `use` of this file named, as in `use super::users; users::open()`.
            name if import.name.is_none() => {
                let named = |other: &&ImportedPath| other.name.as_deref() == Some(name) && !other.is_glob;
                let base = self.absolute(from, file, file.imports.iter().find(named)?)?;
                self.modules.get(&base)?;
                module = base;
            }
            _ => return None,
        }
        for segment in segments {
            match segment.as_str() {
                "super" => drop(module.pop()),
                "self" => {}
                name => module.push(name.to_owned()),
            }
        }
        Some(module)
    }

    /// The file that defines what an absolute path names, through re-exports. `None` if no definition is found.
    fn definer(&self, path: &[String]) -> Option<String> {
        self.definer_unless(path, &mut BTreeSet::new())
    }

    fn definer_unless(&self, path: &[String], visited: &mut BTreeSet<Module>) -> Option<String> {
        if !visited.insert(path.to_vec()) {
            return None;
        }
        let (file_path, rest) = self.nearest_file(path);
        let file = self.files.get(file_path)?;
        let Some((name, rest)) = rest.split_first() else {
            return (!is_parent(file_path)).then(|| file_path.to_owned());
        };
        if file.definitions.iter().any(|definition| definition.name == *name && definition.keyword != "impl") {
            return Some(file_path.to_owned());
        }
        file.imports.iter().filter(|import| import.inline.is_empty()).find_map(|import| {
            if import.is_glob {
                let base = self.absolute(file_path, file, import)?;
                return self.definer_unless(&child(&base, name), visited);
            }
            if import.name.as_ref() != Some(name) {
                return None;
            }
            let mut base = self.absolute(file_path, file, import)?;
            base.extend_from_slice(rest);
            self.definer_unless(&base, visited)
        })
    }

    /// The file of the longest beginning of a path, and what is left of the path.
    fn nearest_file<'a>(&self, path: &'a [String]) -> (&str, &'a [String]) {
        let nearest = (0..=path.len())
            .rev()
            .find_map(|length| Some((self.modules.get(&path[..length])?.as_str(), &path[length..])));
        nearest.unwrap_or(("lib.rs", path))
    }
}

/// Only declares and re-exports, by the rule of `mod.rs`.
pub(super) fn is_parent(path: &str) -> bool {
    path == "lib.rs" || path.ends_with("/mod.rs")
}

fn module_of(path: &str) -> Module {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = if path == "lib" { "" } else { path.strip_suffix("/mod").unwrap_or(path) };
    path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn child(module: &[String], name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

fn read_below(folder: &Path, below: &str, sources: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a folder that can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        let name = format!("{below}{name}");
        if path.is_dir() {
            read_below(&path, &format!("{name}/"), sources);
        } else if name.ends_with(".rs") {
            sources.push((name, fs::read_to_string(&path).expect("source text")));
        }
    }
}
