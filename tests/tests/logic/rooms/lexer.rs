//! Splits Rust source into the few kinds of tokens that imports and items need.

/// One token and the line it begins on, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A word: an identifier or a keyword.
    Word(String),
    /// One character of punctuation. `::` is [`TokenKind::PathSeparator`].
    Punct(char),
    PathSeparator,
    /// A string, a character, a number or a lifetime. Nothing here reads its text.
    Literal,
}

impl Token {
    pub(super) fn word(&self) -> Option<&str> {
        match &self.kind {
            TokenKind::Word(word) => Some(word),
            TokenKind::Punct(_) | TokenKind::PathSeparator | TokenKind::Literal => None,
        }
    }

    pub(super) fn is(&self, punct: char) -> bool {
        self.kind == TokenKind::Punct(punct)
    }
}

/// The tokens of a source text, without comments and blanks. A literal of several lines yields one token per line, so
/// that tokens count the lines of code.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    Lexer { chars: source.chars().collect(), at: 0, line: 1, tokens: Vec::new() }.run()
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn run(mut self) -> Vec<Token> {
        while let Some(char) = self.peek(0) {
            match char {
                '/' if self.peek(1) == Some('/') => self.skip_while(|char| char != '\n'),
                '/' if self.peek(1) == Some('*') => self.skip_block_comment(),
                '"' => self.string(),
                '\'' => self.quote(),
                ':' if self.peek(1) == Some(':') => {
                    self.push(TokenKind::PathSeparator);
                    self.advance(2);
                }
                _ if char.is_ascii_digit() => {
                    self.push(TokenKind::Literal);
                    self.skip_while(is_word);
                }
                _ if is_word(char) => self.word(),
                _ if char.is_whitespace() => self.advance(1),
                _ => {
                    self.push(TokenKind::Punct(char));
                    self.advance(1);
                }
            }
        }
        self.tokens
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn push(&mut self, kind: TokenKind) {
        self.tokens.push(Token { kind, line: self.line });
    }

    fn advance(&mut self, count: usize) {
        for _ in 0..count {
            self.line += usize::from(self.peek(0) == Some('\n'));
            self.at += 1;
        }
    }

    fn skip_while(&mut self, keep: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&keep) {
            self.advance(1);
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                (None, _) => return,
                _ => {
                    self.advance(1);
                    continue;
                }
            }
            self.advance(2);
            if depth == 0 {
                return;
            }
        }
    }

    /// A word, or the string that begins with one of the prefixes `r`, `b`, `br`, `c` and `cr`.
    fn word(&mut self) {
        let begin = self.at;
        let line = self.line;
        self.skip_while(is_word);
        let word: String = self.chars[begin..self.at].iter().collect();
        let raw = matches!(word.as_str(), "r" | "br" | "cr");
        match self.peek(0) {
            Some('"' | '#') if raw && self.is_raw_string() => self.raw_string(),
            Some('"') if matches!(word.as_str(), "b" | "c") => self.string(),
            Some('\'') if word == "b" => self.quote(),
            // A raw identifier: `r#type`.
            Some('#') if word == "r" => self.advance(1),
            _ => self.tokens.push(Token { kind: TokenKind::Word(word), line }),
        }
    }

    fn is_raw_string(&self) -> bool {
        let hashes = self.chars[self.at..].iter().take_while(|char| **char == '#').count();
        self.peek(hashes) == Some('"')
    }

    fn raw_string(&mut self) {
        let hashes = self.chars[self.at..].iter().take_while(|char| **char == '#').count();
        self.push(TokenKind::Literal);
        self.advance(hashes + 1);
        while let Some(char) = self.peek(0) {
            let closes = char == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#'));
            self.literal_char();
            if closes {
                return self.advance(hashes);
            }
        }
    }

    fn string(&mut self) {
        self.push(TokenKind::Literal);
        self.advance(1);
        while let Some(char) = self.peek(0) {
            if char == '\\' {
                self.literal_char();
            }
            self.literal_char();
            if char == '"' {
                return;
            }
        }
    }

    /// One character inside a literal. The first of each further line makes that line one of code.
    fn literal_char(&mut self) {
        let line = self.line;
        self.advance(1);
        if self.line != line {
            self.push(TokenKind::Literal);
        }
    }

    /// What begins with `'`: a character or a lifetime.
    fn quote(&mut self) {
        self.push(TokenKind::Literal);
        if self.peek(1) == Some('\\') {
            self.advance(3);
            self.skip_while(|char| char != '\'');
            self.advance(1);
        } else if self.peek(2) == Some('\'') {
            self.advance(3);
        } else {
            self.advance(1);
            self.skip_while(is_word);
        }
    }
}

fn is_word(char: char) -> bool {
    char == '_' || char.is_alphanumeric()
}
