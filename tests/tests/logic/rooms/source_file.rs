//! The imports, definitions and number of code lines of one source file. Code under `#[cfg(test)]` does not count.

use std::collections::BTreeSet;

use super::lexer::{Token, TokenKind, tokens};

/// A path as the source names it, with the module it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImportedPath {
    pub(super) segments: Vec<String>,
    /// The name that a `use` gives it here. `None` for a path within an expression or a type.
    pub(super) name: Option<String>,
    /// `use …::*`
    pub(super) is_glob: bool,
    /// The inline modules around it, outermost first.
    pub(super) inline: Vec<String>,
    pub(super) line: usize,
}

/// An item at the top of a file or of an inline module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    /// `struct`, `fn`, `impl` …
    pub(super) keyword: String,
    pub(super) name: String,
    pub(super) line: usize,
}

#[derive(Debug, Default)]
pub(super) struct SourceFile {
    pub(super) imports: Vec<ImportedPath>,
    pub(super) definitions: Vec<Definition>,
    /// Modules in files of their own: `mod name;`
    pub(super) modules: Vec<String>,
    /// Those of them that only tests have.
    pub(super) test_modules: Vec<String>,
    /// Every word outside `use`: names that a glob import could have brought.
    pub(super) words: BTreeSet<String>,
    pub(super) code_lines: usize,
}

impl SourceFile {
    pub(super) fn parse(source: &str) -> Self {
        let tokens = tokens(source);
        let mut parser = Parser { tokens: &tokens, at: 0, file: Self::default(), code_lines: BTreeSet::new() };
        parser.items(&mut Vec::new());
        parser.file.code_lines = parser.code_lines.len();
        parser.file
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    file: SourceFile,
    code_lines: BTreeSet<usize>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn is(&self, punct: char) -> bool {
        self.peek().is_some_and(|token| token.is(punct))
    }

    fn word(&self) -> Option<&str> {
        self.peek().and_then(Token::word)
    }

    /// The items up to the end of the file or of the inline module.
    fn items(&mut self, inline: &mut Vec<String>) {
        while self.peek().is_some() && !self.is('}') {
            self.item(inline);
        }
    }

    fn item(&mut self, inline: &mut Vec<String>) {
        let begin = self.at;
        let mut is_test = false;
        while self.is('#') {
            is_test |= self.skip_attribute();
        }
        if self.word() == Some("pub") {
            self.at += 1;
            if self.is('(') {
                self.skip_group();
            }
        }
        let line = self.peek().map_or(0, |token| token.line);
        let second = self.tokens.get(self.at + 1).and_then(Token::word).unwrap_or_default().to_owned();
        let first = self.word().unwrap_or_default().to_owned();
        let (keyword, name) = match (first.as_str(), second.as_str()) {
            ("const" | "async" | "unsafe" | "extern", "fn" | "unsafe" | "async" | "extern" | "trait" | "impl") => {
                self.rest_of_head()
            }
            _ if self.tokens.get(self.at + 1).is_some_and(|token| token.is('!')) => {
                let name = self.tokens.get(self.at + 2).and_then(Token::word).unwrap_or_default();
                (format!("{first}!"), name.to_owned())
            }
            _ => (first, second),
        };
        match keyword.as_str() {
            "mod" => {
                self.at += 2;
                if self.is(';') {
                    self.at += 1;
                    if is_test { &mut self.file.test_modules } else { &mut self.file.modules }.push(name);
                } else if is_test {
                    self.skip_group();
                    return;
                } else {
                    self.at += 1;
                    inline.push(name);
                    self.count_lines(begin);
                    self.items(inline);
                    inline.pop();
                    self.at += 1;
                    return;
                }
            }
            "use" => {
                self.at += 1;
                self.use_tree(Vec::new(), inline, is_test);
                self.at += 1;
            }
            // `extern crate` brings a name; a lone `;` brings nothing.
            "extern" | "" => self.skip_item(""),
            _ => {
                let head = self.at;
                self.skip_item(&keyword);
                if !is_test {
                    self.file.definitions.push(Definition { keyword, name, line });
                    self.paths(head, inline);
                }
            }
        }
        if !is_test {
            self.count_lines(begin);
        }
    }

    /// Skips an attribute. True if it is `#[cfg(test)]`.
    fn skip_attribute(&mut self) -> bool {
        let begin = self.at;
        self.at += 1;
        self.at += usize::from(self.is('!'));
        self.skip_group();
        let words: Vec<_> = self.tokens[begin..self.at].iter().filter_map(Token::word).collect();
        words == ["cfg", "test"]
    }

    /// Keyword and name of an item whose head begins with more than one keyword, such as `pub const unsafe fn name`.
    fn rest_of_head(&self) -> (String, String) {
        let mut words = self.tokens[self.at..].iter().filter_map(Token::word);
        let keyword = words.find(|word| matches!(*word, "fn" | "trait" | "impl")).unwrap_or_default().to_owned();
        (keyword, words.next().unwrap_or_default().to_owned())
    }

    fn count_lines(&mut self, begin: usize) {
        self.code_lines.extend(self.tokens[begin..self.at].iter().map(|token| token.line));
    }

    /// Skips a bracketed group that begins here, or one token.
    fn skip_group(&mut self) {
        let mut depth = 0_usize;
        while let Some(token) = self.peek() {
            if matches!(token.kind, TokenKind::Punct('(' | '[' | '{')) {
                depth += 1;
            } else if matches!(token.kind, TokenKind::Punct(')' | ']' | '}')) {
                depth = depth.saturating_sub(1);
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    /// Skips to the end of an item: its `;`, or the end of its block.
    fn skip_item(&mut self, keyword: &str) {
        // The block of a constant's value is not the end of it.
        let has_value = matches!(keyword, "const" | "static");
        while let Some(token) = self.peek() {
            let (ends, is_block) = (token.is(';'), token.is('{'));
            self.skip_group();
            if ends || is_block && !has_value {
                return;
            }
        }
    }

    fn use_tree(&mut self, mut segments: Vec<String>, inline: &[String], is_test: bool) {
        let line = self.peek().map_or(0, |token| token.line);
        if self.peek().is_some_and(|token| token.kind == TokenKind::PathSeparator) {
            self.at += 1;
        }
        loop {
            if self.is('{') {
                self.at += 1;
                while self.peek().is_some() && !self.is('}') {
                    self.use_tree(segments.clone(), inline, is_test);
                    self.at += usize::from(self.is(','));
                }
                self.at += 1;
                return;
            }
            let is_glob = self.is('*');
            if !is_glob {
                segments.push(self.word().unwrap_or_default().to_owned());
            }
            self.at += 1;
            if self.peek().is_some_and(|token| token.kind == TokenKind::PathSeparator) {
                self.at += 1;
                continue;
            }
            // `use path::{self}` names the module itself.
            if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
                segments.pop();
            }
            let mut name = segments.last().cloned();
            if self.word() == Some("as") {
                self.at += 1;
                name = self.word().map(str::to_owned);
                self.at += 1;
            }
            if !is_test {
                self.file.imports.push(ImportedPath { segments, name, is_glob, inline: inline.to_vec(), line });
            }
            return;
        }
    }

    /// Paths within an item, and its `use` lines.
    fn paths(&mut self, begin: usize, inline: &[String]) {
        let end = self.at;
        self.at = begin;
        while self.at < end {
            if self.is('#') && self.skip_attribute() {
                self.skip_item("");
                continue;
            }
            let Some(word) = self.word().map(str::to_owned) else {
                self.at += 1;
                continue;
            };
            if word == "use" {
                self.at += 1;
                // `use<'a>` of a captured lifetime is no import.
                if !self.is('<') {
                    self.use_tree(Vec::new(), inline, false);
                }
                continue;
            }
            let line = self.tokens[self.at].line;
            // `.field::<T>()` and `Self::NAME` begin no path of modules.
            let is_member = self.at > 0 && self.tokens[self.at - 1].is('.');
            self.file.words.insert(word.clone());
            self.at += 1;
            let mut segments = vec![word];
            while self.at + 1 < end && self.tokens[self.at].kind == TokenKind::PathSeparator {
                let Some(next) = self.tokens[self.at + 1].word() else { break };
                segments.push(next.to_owned());
                self.at += 2;
            }
            if segments.len() > 1 && !is_member {
                let inline = inline.to_vec();
                self.file.imports.push(ImportedPath { segments, name: None, is_glob: false, inline, line });
            }
        }
        self.at = end;
    }
}
