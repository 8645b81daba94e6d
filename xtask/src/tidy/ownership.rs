//! Where `unsafe` may stand.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ExprUnsafe, File, ItemForeignMod, ItemImpl, ItemTrait, Macro, Signature};

use super::rules::UNSAFE;
use super::{Problem, Source};

pub(super) fn check(source: &Source, file: &File) -> Vec<Problem> {
    if UNSAFE.iter().any(|prefix| source.path.starts_with(prefix)) {
        return Vec::new();
    }
    let mut found = Unsafe { lines: Vec::new() };
    found.visit_file(file);
    let message = format!("`unsafe` may stand only in {} and in `unsafe impl Pod`", UNSAFE.join(", "));
    found.lines.into_iter().map(|line| Problem::new(source, line, message.clone())).collect()
}

struct Unsafe {
    lines: Vec<usize>,
}

impl Unsafe {
    fn add(&mut self, item: &impl Spanned) {
        self.lines.push(item.span().start().line);
    }

    fn add_tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if ident == "unsafe" => self.add(&ident),
                TokenTree::Group(group) => self.add_tokens(group.stream()),
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Unsafe {
    fn visit_expr_unsafe(&mut self, item: &'ast ExprUnsafe) {
        self.add(&item.unsafe_token);
        visit::visit_expr_unsafe(self, item);
    }

    fn visit_signature(&mut self, item: &'ast Signature) {
        if let Some(token) = &item.unsafety {
            self.add(token);
        }
        visit::visit_signature(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let pod = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
        if let Some(token) = &item.unsafety
            && pod.is_none_or(|name| name.ident != "Pod")
        {
            self.add(token);
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        if let Some(token) = &item.unsafety {
            self.add(token);
        }
        visit::visit_item_trait(self, item);
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast ItemForeignMod) {
        self.add(&item.abi);
        visit::visit_item_foreign_mod(self, item);
    }

    fn visit_attribute(&mut self, item: &'ast Attribute) {
        // `#[unsafe(no_mangle)]`
        if item.path().is_ident("unsafe") {
            self.add(item);
        }
        visit::visit_attribute(self, item);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.add_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }
}
