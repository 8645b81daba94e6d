//! Collects the paths that a file names, as far as syntax shows them: `use`, expressions, types, attributes and macro
//! arguments.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, File, ImplItemFn, Item, ItemMod, Macro, UseTree, VisRestricted, Visibility};

/// A path that a file names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Its segments. `crate`, `self` and `super` are resolved: a path that starts with one of them begins with `crate`.
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
    /// The import, if the path is in a `use` declaration.
    pub(super) import: Option<Import>,
}

/// The name that a `use` declaration gives to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    /// `None` for `*`.
    pub(super) name: Option<String>,
    /// Whether other modules may name it: `pub use`, with any restriction.
    pub(super) is_public: bool,
}

/// Returns every path that `file`, which is the module `module` of its crate, names outside its tests.
pub(super) fn paths(file: &File, module: &[String]) -> Vec<Named> {
    let mut found = Paths { module: module.to_vec(), named: Vec::new() };
    found.visit_file(file);
    found.named
}

/// Returns whether an item is only for tests: `#[cfg(test)]`, alone or inside `all(...)` or `any(...)`.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                let text = list.tokens.to_string();
                !text.contains("not") && text.split([' ', '(', ')', ',']).any(|word| word == "test")
            })
    })
}

struct Paths {
    module: Vec<String>,
    named: Vec<Named>,
}

impl Paths {
    fn add(&mut self, segments: &[String], line: usize, import: Option<Import>) {
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
                self.named.push(Named { segments: segments.to_vec(), line, import });
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
        self.named.push(Named { segments: base, line, import });
    }

    fn add_use(&mut self, tree: &UseTree, before: &[String], line: usize, is_public: bool) {
        let with = |name: String| before.iter().cloned().chain([name]).collect::<Vec<_>>();
        let import = |name: Option<String>| Some(Import { name, is_public });
        match tree {
            UseTree::Path(path) => {
                let line = path.ident.span().start().line;
                self.add_use(&path.tree, &with(path.ident.to_string()), line, is_public);
            }
            UseTree::Name(name) => {
                let text = name.ident.to_string();
                let whole = if text == "self" { before.to_vec() } else { with(text) };
                let last = whole.last().cloned();
                self.add(&whole, name.ident.span().start().line, import(last));
            }
            UseTree::Rename(name) => {
                let text = name.ident.to_string();
                let whole = if text == "self" { before.to_vec() } else { with(text) };
                self.add(&whole, name.ident.span().start().line, import(Some(name.rename.to_string())));
            }
            UseTree::Glob(_) => self.add(before, line, import(None)),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, before, line, is_public);
                }
            }
        }
    }

    /// Adds paths among unparsed tokens: at least `a::b`, because a single word may be anything.
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
                    // `use a::{b, c}` inside a macro: the words of the group continue the path.
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
            self.add(path, line, None);
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
            Item::Struct(i) => &i.attrs,
            Item::Enum(i) => &i.attrs,
            Item::Const(i) => &i.attrs,
            Item::Static(i) => &i.attrs,
            Item::Type(i) => &i.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, method: &'ast ImplItemFn) {
        if !is_test(&method.attrs) {
            visit::visit_impl_item_fn(self, method);
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
        let is_public = !matches!(item.vis, Visibility::Inherited);
        self.add_use(&item.tree, &[], item.use_token.span.start().line, is_public);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |s| s.ident.span().start().line);
        self.add(&segments, line, None);
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

    /// `pub(in crate::http)` limits the visibility of an item. It is not an import.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}
}
