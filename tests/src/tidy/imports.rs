//! What one file imports and defines, read off its tokens: the input of the search for circles.
//!
//! Tokens instead of a syntax tree, because paths inside macros count like all others. Comments and texts of
//! literals are no tokens, so no path in them counts. What `#[cfg(test)]` marks is left out.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::FromStr;

use proc_macro2::token_stream::IntoIter;
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A path as it is written, one name a part; the first part may be `crate`, `self` or `super`.
pub(super) type Path = Vec<String>;

/// One module, of a whole file or in braces.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Items that stand in the module itself.
    pub(super) defined: BTreeSet<String>,
    /// Modules that it declares, with their scope if they stand in braces.
    pub(super) children: Vec<(String, Option<Scope>)>,
    /// The names that its `use` lines bind.
    pub(super) bindings: Vec<Binding>,
    /// What `use path::*` takes all names of.
    pub(super) globs: Vec<Path>,
    /// Every path in its code, those of one name too.
    pub(super) paths: BTreeSet<Path>,
}

/// A name that a `use` line binds.
#[derive(Debug)]
pub(super) struct Binding {
    /// The name in this module.
    pub(super) name: String,
    /// What it stands for.
    pub(super) path: Path,
    /// `pub use`, of whatever visibility: a re-export.
    pub(super) exported: bool,
}

/// The scope of a file.
///
/// # Errors
/// When the text is not a sequence of Rust's tokens.
pub(super) fn read(text: &str) -> Result<Scope, proc_macro2::LexError> {
    let mut scope = Scope::default();
    let tokens = TokenStream::from_str(text)?;
    if !is_test_file(tokens.clone()) {
        walk(tokens, &mut scope, true);
    }
    Ok(scope)
}

/// Words that begin no path.
const KEYWORDS: &[&str] = &[
    "as", "async", "await", "break", "const", "continue", "dyn", "else", "enum", "extern", "false", "fn",
    "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "Self",
    "static", "struct", "trait", "true", "type", "unsafe", "use", "where", "while", "_",
];

/// Words before the name of an item.
const ITEMS: &[&str] = &["const", "enum", "fn", "static", "struct", "trait", "type", "union", "macro_rules"];

/// The tokens of one group, with what the walk has to know of those that it passed.
struct Tokens {
    rest: Peekable<IntoIter>,
    last: [Option<TokenTree>; 2],
}

impl Tokens {
    fn new(tokens: TokenStream) -> Self {
        Self { rest: tokens.into_iter().peekable(), last: [None, None] }
    }

    fn next(&mut self) -> Option<TokenTree> {
        let token = self.rest.next()?;
        self.last = [self.last[1].take(), Some(token.clone())];
        Some(token)
    }

    fn next_is(&mut self, letter: char) -> bool {
        is_punct(self.rest.peek(), letter)
    }

    fn next_word(&mut self) -> Option<String> {
        word(self.rest.peek())
    }

    /// Takes `::` if it is next.
    fn take_colons(&mut self) -> bool {
        let mut ahead = self.rest.clone();
        let found = is_punct(ahead.next().as_ref(), ':') && is_punct(ahead.next().as_ref(), ':');
        if found {
            self.next();
            self.next();
        }
        found
    }

    /// Whether the name that is next is a field or method of something: `.name`, not `..name`.
    fn after_dot(&self) -> bool {
        is_punct(self.last[1].as_ref(), '.') && !is_punct(self.last[0].as_ref(), '.')
    }

    /// Passes over the item behind an attribute.
    fn skip_item(&mut self) {
        let (mut is_use, mut is_item) = (false, false);
        // The end of the group is the end of the item, too.
        while let Some(token) = self.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ';' => return,
                // A field or a variant; between `fn` and its body stand commas, too.
                TokenTree::Punct(punct) if punct.as_char() == ',' && !is_item => return,
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !is_use => return,
                TokenTree::Ident(word) => {
                    is_use |= word == "use";
                    is_item |= is_use || word == "impl" || ITEMS.iter().any(|item| word == item);
                }
                _ => {}
            }
        }
    }
}

fn is_punct(token: Option<&TokenTree>, letter: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == letter)
}

fn word(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn walk(tokens: TokenStream, scope: &mut Scope, is_module: bool) {
    let mut tokens = Tokens::new(tokens);
    while let Some(token) = tokens.rest.peek().cloned() {
        match token {
            TokenTree::Group(group) => {
                tokens.next();
                walk(group.stream(), scope, false);
            }
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                tokens.next();
                let group = match tokens.rest.peek() {
                    Some(TokenTree::Group(group)) => group.clone(),
                    _ => continue,
                };
                tokens.next();
                if is_test(&group) {
                    tokens.skip_item();
                } else {
                    walk(group.stream(), scope, false);
                }
            }
            // `::name` is a crate's name, `'name` a lifetime or label.
            TokenTree::Punct(punct) => {
                tokens.next();
                if punct.as_char() == '\'' {
                    tokens.next();
                } else if punct.as_char() == ':' && tokens.next_is(':') {
                    tokens.next();
                    path(&mut tokens);
                }
            }
            TokenTree::Literal(_) => {
                tokens.next();
            }
            TokenTree::Ident(ident) => named(&ident.to_string(), &mut tokens, scope, is_module),
        }
    }
}

/// What begins with a word: an item, a `use` line, a module, a path.
fn named(first: &str, tokens: &mut Tokens, scope: &mut Scope, is_module: bool) {
    let exported = is_exported(tokens);
    let is_variable = is_punct(tokens.last[1].as_ref(), '$') && first != "crate";
    match first {
        "use" => {
            tokens.next();
            // `use<'a>` is a bound.
            if !tokens.next_is('<') {
                use_line(tokens, scope, exported);
            }
        }
        "mod" => {
            tokens.next();
            if let Some(name) = tokens.next_word() {
                tokens.next();
                let inline = match tokens.rest.peek() {
                    Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                        Some(group.stream())
                    }
                    _ => None,
                };
                let inline = inline.map(|stream| {
                    tokens.next();
                    let mut inner = Scope::default();
                    walk(stream, &mut inner, true);
                    inner
                });
                scope.children.push((name, inline));
            }
        }
        item if ITEMS.contains(&item) => {
            tokens.next();
            if item == "macro_rules" {
                tokens.next();
            }
            if let Some(name) = tokens.next_word().filter(|name| !KEYWORDS.contains(&name.as_str())) {
                tokens.next();
                if is_module {
                    scope.defined.insert(name);
                }
            }
        }
        word if KEYWORDS.contains(&word) => {
            tokens.next();
        }
        _ => {
            let counts = !tokens.after_dot() && !is_variable;
            let path = path(tokens);
            // `name:` is a field, a parameter or a bound variable.
            let is_label = path.len() == 1 && tokens.next_is(':');
            if counts && !is_label {
                scope.paths.insert(path);
            }
        }
    }
}

/// Whether `pub` or `pub(..)` stands before what is next.
fn is_exported(tokens: &Tokens) -> bool {
    let is_pub = |token: &Option<TokenTree>| word(token.as_ref()).is_some_and(|word| word == "pub");
    match &tokens.last[1] {
        Some(TokenTree::Group(group)) => is_pub(&tokens.last[0]) && group.stream().to_string() != "self",
        last => is_pub(last),
    }
}

/// The names that are next, joined by `::`.
fn path(tokens: &mut Tokens) -> Path {
    let mut path = Vec::new();
    while let Some(name) = tokens.next_word() {
        tokens.next();
        path.push(name);
        if !tokens.take_colons() {
            break;
        }
    }
    path
}

/// What follows the word `use`, up to and with its semicolon.
fn use_line(tokens: &mut Tokens, scope: &mut Scope, exported: bool) {
    // `use ::name` is a crate's.
    let before = if tokens.take_colons() { vec![String::new()] } else { Vec::new() };
    use_tree(tokens, &before, scope, exported);
}

/// One branch of a `use` line's tree.
fn use_tree(tokens: &mut Tokens, before: &[String], scope: &mut Scope, exported: bool) {
    let mut path = before.to_vec();
    loop {
        match tokens.next() {
            Some(TokenTree::Ident(name)) => path.push(name.to_string()),
            Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => {
                scope.globs.push(path);
                return;
            }
            Some(TokenTree::Group(group)) => {
                let mut inner = Tokens::new(group.stream());
                while inner.rest.peek().is_some() {
                    use_tree(&mut inner, &path, scope, exported);
                    // The comma.
                    inner.next();
                }
                return;
            }
            _ => return,
        }
        if !tokens.take_colons() {
            break;
        }
    }
    // `use a::{self}` is `use a`.
    if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
        path.pop();
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if tokens.next_word().is_some_and(|word| word == "as") {
        tokens.next();
        name = tokens.next_word().unwrap_or_default();
        tokens.next();
    }
    scope.bindings.push(Binding { name, path, exported });
}

/// Whether an attribute's group is `cfg(test)` or `cfg(all(test, ..))`.
fn is_test(attribute: &Group) -> bool {
    let mut tokens = attribute.stream().into_iter();
    let is_cfg = word(tokens.next().as_ref()).is_some_and(|word| word == "cfg");
    match tokens.next() {
        Some(TokenTree::Group(condition)) if is_cfg => needs_test(condition.stream()),
        _ => false,
    }
}

fn needs_test(condition: TokenStream) -> bool {
    let mut tokens = condition.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match word(Some(&token)).as_deref() {
            Some("test") => return true,
            Some("all") => {
                if let Some(TokenTree::Group(inner)) = tokens.peek()
                    && needs_test(inner.stream())
                {
                    return true;
                }
            }
            _ => {}
        }
        // The group of `any`, `not` or `all` is behind.
        if matches!(tokens.peek(), Some(TokenTree::Group(_))) {
            tokens.next();
        }
    }
    false
}

/// Whether a file begins with `#![cfg(test)]`.
fn is_test_file(tokens: TokenStream) -> bool {
    let mut tokens = tokens.into_iter().peekable();
    while is_punct(tokens.next().as_ref(), '#') && is_punct(tokens.peek(), '!') {
        tokens.next();
        match tokens.next() {
            Some(TokenTree::Group(group)) if is_test(&group) => return true,
            _ => {}
        }
    }
    false
}
