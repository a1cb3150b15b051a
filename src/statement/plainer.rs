//! A text as the grammar can read it: what it does not know, and what says nothing about where rows are, is taken out or
//! written otherwise. Only the tree is made of this: the text stays as it is.

use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

/// The tokens without those that stand between them, and with words for what the grammar has no words for.
pub(super) fn plainer(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_space = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    let tokens: Vec<TokenWithSpan> = tokens.into_iter().filter(|token| !is_space(token)).collect();
    let mut plainer = Plainer { out: Vec::with_capacity(tokens.len() + 1), ..Plainer::of(&tokens) };
    while plainer.index < tokens.len() {
        plainer.index += match plainer.rewritten() {
            0 => plainer.copied(),
            taken => taken,
        };
    }
    plainer.out
}

struct Plainer<'t> {
    tokens: &'t [TokenWithSpan],
    index: usize,
    /// Of parentheses around what comes next.
    depth: usize,
    out: Vec<TokenWithSpan>,
    /// Within the left side of an assignment of an UPDATE.
    sets: bool,
    /// Parentheses by their number, in front of which others are to be closed.
    ends: Vec<usize>,
}

impl<'t> Plainer<'t> {
    fn of(tokens: &'t [TokenWithSpan]) -> Self {
        Self { tokens, index: 0, depth: 0, out: Vec::new(), sets: false, ends: Vec::new() }
    }

    /// The word so many tokens further on, in lower case; empty for anything else.
    fn word(&self, ahead: usize) -> String {
        word(self.tokens.get(self.index + ahead))
    }

    fn before(&self) -> String {
        word(self.index.checked_sub(1).and_then(|before| self.tokens.get(before)))
    }

    fn is(&self, ahead: usize, token: &Token) -> bool {
        self.tokens.get(self.index + ahead).is_some_and(|found| found.token == *token)
    }

    fn is_behind(&self, token: &Token) -> bool {
        self.index > 0 && self.tokens[self.index - 1].token == *token
    }

    fn span(&self) -> Span {
        self.tokens[self.index].span
    }

    fn put(&mut self, token: Token) {
        let span = self.span();
        self.out.push(TokenWithSpan { token, span });
    }

    fn put_words(&mut self, words: &[&str]) {
        words.iter().for_each(|word| self.put(Token::make_keyword(word)));
    }

    /// Writes otherwise what comes next, if need be: how many tokens that was.
    fn rewritten(&mut self) -> usize {
        let (first, second, third) = (self.word(0), self.word(1), self.word(2));
        match (first.as_str(), second.as_str(), third.as_str()) {
            // Which row that is, the cursor's server knows.
            ("where", "current", "of") => {
                self.put_words(&["WHERE", "TRUE"]);
                4
            }
            ("table", ..) if !self.is(2, &Token::LParen) && self.begins_query() => {
                self.put_words(&["SELECT"]);
                self.put(Token::Mul);
                self.put_words(&["FROM"]);
                1
            }
            ("overriding", "system" | "user", "value")
            | ("exclude", "current", "row")
            | ("exclude", "no", "others") => 3,
            ("exclude", "group" | "ties", _) => 2,
            ("for", "read", "only") => 3,
            ("isnull", ..) if !self.is(1, &Token::Period) && self.index > 0 && !self.is_behind(&Token::Period) => {
                self.put_words(&["IS", "NULL"]);
                1
            }
            // Which of the two is the lower one, only the server knows.
            ("between", "symmetric", _) => {
                self.put_words(&["IS", "DISTINCT", "FROM"]);
                2
            }
            // How often a group comes is all that it says.
            ("group", "by", "all" | "distinct") if !self.is(3, &Token::LParen) => {
                self.put_words(&["GROUP", "BY"]);
                3
            }
            ("search", "depth" | "breadth", "first") => self.until_behind("set"),
            ("cycle", ..) if self.is_behind(&Token::RParen) => self.until_behind("using"),
            ("rows", "from", _) if self.is(2, &Token::LParen) => {
                self.put_words(&["LATERAL"]);
                self.put(Token::LParen);
                self.put_words(&["SELECT"]);
                self.depth += 1;
                3
            }
            ("with", "ordinality", _) if self.is_behind(&Token::RParen) && self.closes_rows_from() => 2,
            ("values", ..) if self.is_behind(&Token::LParen) && self.is_compared_with_any() => {
                self.put_words(&["COALESCE"]);
                self.put(Token::LParen);
                self.ends.push(self.depth);
                1
            }
            ("xmlelement", ..) if self.is(1, &Token::LParen) && second.is_empty() && third == "name" => {
                self.put_words(&["COALESCE"]);
                self.put(Token::LParen);
                self.depth += 1;
                // XMLELEMENT ( NAME x ,
                4 + usize::from(self.is(4, &Token::Comma))
            }
            (name, ..) if LITERAL_TYPES.contains(&name) && self.is_literal(1) && !self.is_behind(&Token::Period) => 1,
            _ => self.rewritten_sign(),
        }
    }

    fn begins_query(&self) -> bool {
        let before = self.before();
        self.index == 0 || self.is_behind(&Token::LParen) || BEFORE_QUERIES.contains(&before.as_str())
    }

    fn rewritten_sign(&mut self) -> usize {
        if self.sets && self.depth == 0 && self.is(0, &Token::LBracket) {
            return subscript(&self.tokens[self.index..]);
        }
        // `users *` is users with its descendants, as without the sign.
        if self.is(0, &Token::Mul) && self.index > 1 && !self.before().is_empty() {
            let introduced = word(self.tokens.get(self.index - 2));
            let ends = !self.is(1, &Token::LParen) && !self.is_number(1);
            return usize::from(matches!(introduced.as_str(), "from" | "join" | "only") && ends);
        }
        // A list that begins with a subquery in parentheses is taken for one.
        let is_list = self.before() == "in" && self.is(0, &Token::LParen) && self.is(1, &Token::LParen);
        if is_list && self.lists_subquery() {
            self.put(Token::LParen);
            self.put(Token::Plus);
            self.depth += 1;
            return 1;
        }
        0
    }

    fn copied(&mut self) -> usize {
        match &self.tokens[self.index].token {
            Token::LParen => self.depth += 1,
            Token::RParen => {
                if self.ends.last() == Some(&self.depth) {
                    self.ends.pop();
                    self.put(Token::RParen);
                }
                self.depth = self.depth.saturating_sub(1);
            }
            // Of an assignment, what is left of the sign.
            Token::Comma if self.depth == 0 && self.updates() && self.out.iter().any(is_set) => self.sets = true,
            Token::Eq if self.depth == 0 => self.sets = false,
            _ => self.sets |= self.depth == 0 && self.updates() && self.word(0) == "set",
        }
        self.out.push(self.tokens[self.index].clone());
        1
    }

    fn updates(&self) -> bool {
        word(self.tokens.first()) == "update"
    }

    /// Tokens up to the name behind this word.
    fn until_behind(&self, end: &str) -> usize {
        let mut ahead = (1..).take_while(|&ahead| self.tokens.get(self.index + ahead).is_some());
        ahead.find(|&ahead| self.word(ahead) == end).map_or(0, |found| found + 2)
    }

    fn is_compared_with_any(&self) -> bool {
        let before = self.index.checked_sub(2).and_then(|before| self.tokens.get(before));
        matches!(word(before).as_str(), "any" | "some" | "all") && self.word(0) == "values"
    }

    /// `((SELECT …), …)`, not `((SELECT …))`.
    fn lists_subquery(&self) -> bool {
        let mut depth = 0usize;
        let mut rest = self.tokens[self.index + 1..].iter();
        let is_query = matches!(self.word(2).as_str(), "select" | "with" | "values");
        let closed = rest.by_ref().position(|token| {
            depth = match token.token {
                Token::LParen => depth + 1,
                Token::RParen => depth - 1,
                _ => depth,
            };
            depth == 0
        });
        is_query && closed.is_some() && rest.next().is_some_and(|next| next.token == Token::Comma)
    }

    /// The parenthesis that was just closed is that of ROWS FROM.
    fn closes_rows_from(&self) -> bool {
        let mut depth = 0usize;
        let open = self.tokens[..self.index].iter().rposition(|token| {
            match token.token {
                Token::RParen => depth += 1,
                Token::LParen => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let at = |before: usize| word(open.and_then(|open| self.tokens.get(open.checked_sub(before)?)));
        at(1) == "from" && at(2) == "rows"
    }

    fn is_literal(&self, ahead: usize) -> bool {
        let token = self.tokens.get(self.index + ahead).map(|token| &token.token);
        matches!(token, Some(Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_)))
    }

    fn is_number(&self, ahead: usize) -> bool {
        matches!(self.tokens.get(self.index + ahead).map(|token| &token.token), Some(Token::Number(..)))
    }
}

fn word(token: Option<&TokenWithSpan>) -> String {
    match token.map(|token| &token.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_ascii_lowercase(),
        _ => String::new(),
    }
}

fn is_set(token: &TokenWithSpan) -> bool {
    word(Some(token)) == "set"
}

/// How many tokens `[…]` has, at the front.
fn subscript(tokens: &[TokenWithSpan]) -> usize {
    let mut depth = 0;
    let ends = tokens.iter().position(|token| {
        match token.token {
            Token::LBracket => depth += 1,
            Token::RBracket => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    ends.map_or(0, |end| end + 1)
}

/// Types without a word in the grammar, in front of their literals: the latter alone say as much of where rows are.
const LITERAL_TYPES: [&str; 20] = [
    "box",
    "cidr",
    "circle",
    "daterange",
    "inet",
    "int4range",
    "int8range",
    "jsonpath",
    "line",
    "lseg",
    "macaddr",
    "money",
    "numrange",
    "path",
    "pg_lsn",
    "point",
    "polygon",
    "regclass",
    "tsquery",
    "tsvector",
];
/// Words that a query may follow, where it is a part of another.
pub(super) const BEFORE_QUERIES: [&str; 4] = ["union", "intersect", "except", "all"];
