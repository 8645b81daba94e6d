//! What is zeroed is not printed: `Zeroizing` shows what it holds, so a type that has one writes its `Debug` by hand.

use syn::visit::{self, Visit};
use syn::{Attribute, Fields, File, Ident, ItemEnum, ItemStruct, PathSegment};

use super::{Problem, Source};

pub(super) fn check(source: &Source, file: &File) -> Vec<Problem> {
    let mut found = Printed { names: Vec::new() };
    found.visit_file(file);
    let message = |name: &Ident| {
        format!("`{name}` derives `Debug` over a `Zeroizing`, which prints what it holds: write it by hand")
    };
    found
        .names
        .into_iter()
        .map(|name| Problem::new(source, name.span().start().line, message(&name)))
        .collect()
}

struct Printed {
    names: Vec<Ident>,
}

impl Printed {
    fn look<'f>(&mut self, name: &Ident, attributes: &[Attribute], fields: impl Iterator<Item = &'f Fields>) {
        if attributes.iter().any(derives_debug) && fields.into_iter().any(holds) {
            self.names.push(name.clone());
        }
    }
}

impl<'ast> Visit<'ast> for Printed {
    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.look(&item.ident, &item.attrs, std::iter::once(&item.fields));
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        self.look(&item.ident, &item.attrs, item.variants.iter().map(|variant| &variant.fields));
        visit::visit_item_enum(self, item);
    }
}

fn derives_debug(attribute: &Attribute) -> bool {
    let mut derives = false;
    if attribute.path().is_ident("derive") {
        // A path that does not parse is the compiler's affair.
        let _ = attribute.parse_nested_meta(|derived| {
            derives |= derived.path.segments.last().is_some_and(|name| name.ident == "Debug");
            Ok(())
        });
    }
    derives
}

fn holds(fields: &Fields) -> bool {
    struct Holds(bool);
    impl Visit<'_> for Holds {
        fn visit_path_segment(&mut self, segment: &PathSegment) {
            self.0 |= segment.ident == "Zeroizing";
            visit::visit_path_segment(self, segment);
        }
    }
    let mut holds = Holds(false);
    holds.visit_fields(fields);
    holds.0
}
