//! Which paths a file names, as far as syntax tells: `use`, expressions, types, attributes and macro arguments.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, ItemMod, Macro, UseTree, VisRestricted};

/// A path that a file names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Its segments. `crate`, `self` and `super` are resolved: a path inside this crate begins with `crate`.
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
}

/// The module a file of onecli-daemon is: `src/http/exchange.rs` is `["http", "exchange"]`, `src/bin/x.rs` is
/// `["bin"]`, `src/lib.rs` is `[]`. `None` for files of other crates.
pub(super) fn module_of(path: &str) -> Option<Vec<String>> {
    let inside = path.strip_prefix("onecli-daemon/src/")?.strip_suffix(".rs")?;
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if parts[0] == "bin" {
        return Some(vec!["bin".to_owned()]);
    }
    if parts.last().is_some_and(|last| last == "mod" || (parts.len() == 1 && last == "lib")) {
        parts.pop();
    }
    Some(parts)
}

/// Every path that `file`, which is `module`, names outside its tests.
pub(super) fn paths(file: &File, module: &[String]) -> Vec<Named> {
    let mut found = Paths { module: module.to_vec(), named: Vec::new() };
    found.visit_file(file);
    found.named
}

/// `#[cfg(test)]`, alone or inside `all(...)`.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                let text = list.tokens.to_string();
                text == "test"
                    || (text.starts_with("all") && text.split([' ', '(', ')', ',']).any(|w| w == "test"))
            })
    })
}

struct Paths {
    module: Vec<String>,
    named: Vec<Named>,
}

impl Paths {
    fn add(&mut self, segments: &[String], line: usize) {
        let mut at = 0;
        let mut base = match segments.first().map(String::as_str) {
            Some("crate") => {
                at = 1;
                Vec::new()
            }
            Some("self") => {
                at = 1;
                self.module.clone()
            }
            Some("super") => self.module.clone(),
            Some(_) => {
                self.named.push(Named { segments: segments.to_vec(), line });
                return;
            }
            None => return,
        };
        while segments.get(at).is_some_and(|s| s == "super") {
            base.pop();
            at += 1;
        }
        base.extend_from_slice(&segments[at..]);
        base.insert(0, "crate".to_owned());
        self.named.push(Named { segments: base, line });
    }

    fn add_use(&mut self, tree: &UseTree, before: &[String], line: usize) {
        let with = |name: String| before.iter().cloned().chain([name]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => {
                let line = path.ident.span().start().line;
                self.add_use(&path.tree, &with(path.ident.to_string()), line);
            }
            UseTree::Name(name) => self.add(&with(name.ident.to_string()), name.ident.span().start().line),
            UseTree::Rename(name) => self.add(&with(name.ident.to_string()), name.ident.span().start().line),
            UseTree::Glob(_) => self.add(before, line),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, before, line);
                }
            }
        }
    }

    /// Paths among tokens nobody has parsed: at least `a::b`, for a lone word may be anything.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if colons == 2 && !path.is_empty() => {
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Ident(ident) => {
                    self.end_tokens(&mut path, line);
                    line = ident.span().start().line;
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    let joined = colons == 1 || punct.spacing() == Spacing::Joint;
                    colons = if joined { colons + 1 } else { 0 };
                }
                TokenTree::Group(group) => {
                    // `use a::{b, c}` inside a macro: the group's words continue the path.
                    if colons == 2 && group.delimiter() == Delimiter::Brace {
                        for word in first_words(group.stream()) {
                            let mut whole = path.clone();
                            whole.push(word);
                            self.end_tokens(&mut whole, line);
                        }
                        path.clear();
                    }
                    self.end_tokens(&mut path, line);
                    self.add_tokens(group.stream());
                    colons = 0;
                }
                _ => {
                    self.end_tokens(&mut path, line);
                    colons = 0;
                }
            }
        }
        self.end_tokens(&mut path, line);
    }

    fn end_tokens(&mut self, path: &mut Vec<String>, line: usize) {
        if path.len() > 1 {
            self.add(path, line);
        }
        path.clear();
    }
}

/// The first word of each part between commas.
fn first_words(tokens: TokenStream) -> Vec<String> {
    let mut words = Vec::new();
    let mut fresh = true;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if fresh => {
                words.push(ident.to_string());
                fresh = false;
            }
            TokenTree::Punct(punct) if punct.as_char() == ',' => fresh = true,
            _ => {}
        }
    }
    words
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(i) => &i.attrs,
            Item::Use(i) => &i.attrs,
            Item::Fn(i) => &i.attrs,
            Item::Impl(i) => &i.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for attribute in &item.attrs {
            self.visit_attribute(attribute);
        }
        self.add_use(&item.tree, &[], item.use_token.span.start().line);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |s| s.ident.span().start().line);
        self.add(&segments, line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        visit::visit_macro(self, item);
        self.add_tokens(item.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        visit::visit_attribute(self, attribute);
        if let syn::Meta::List(list) = &attribute.meta {
            self.add_tokens(list.tokens.clone());
        }
    }

    /// `pub(in crate::http)` says who may name the item; it names nothing.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}
}
