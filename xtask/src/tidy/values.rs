//! Checks that types with secret values do not print them. `Zeroizing` prints its content, so a type that contains one,
//! under any name, must implement `Debug` by hand. The same rule applies to a type with a plain text field that is
//! named like a value.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};
use syn::{Attribute, Field, Fields, File, Ident, Item, ItemEnum, ItemStruct, Path, UseTree};

use super::source::{Problem, Source};

const ZEROED: &str = "Zeroizing";
/// Names of fields that contain a value, a key or a token in plain text.
const NAMES: [&str; 10] = [
    "api_key",
    "client_token",
    "jwt",
    "passphrase",
    "passphrases",
    "password",
    "private_key",
    "recovery_key",
    "secret_access_key",
    "secret_id",
];
/// Types that print their content. Paths of files and our types that hide their content are not among them.
const PLAIN: [&str; 5] = ["Bytes", "OsString", "String", "str", "u8"];
/// A field with environment variables, as opposed to the name of a variable.
const ENVIRONMENT: (&str, &str) = ("env", "OsString");

/// Aliases of `Zeroizing`, by the module that defines them.
pub(super) type Aliases = BTreeMap<String, Vec<String>>;

/// Adds a file's aliases, for example `type Key = Zeroizing<..>`.
pub(super) fn aliases(source: &Source, file: &File, all: &mut Aliases) {
    for item in &file.items {
        if let Item::Type(alias) = item {
            let mut holds = Holds { zeroed: &[], qualified: None, found: false };
            holds.visit_type(&alias.ty);
            if !holds.found {
                continue;
            }
            all.entry(alias.ident.to_string()).or_default().push(module(&source.path));
        }
    }
}

/// The last name of a file's module; for the root of a crate, the crate's.
fn module(path: &str) -> String {
    if let Some(crate_dir) = path.strip_suffix("/src/lib.rs") {
        let name = crate_dir.rsplit('/').next().unwrap_or_default();
        return format!("onecli_{name}");
    }
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

pub(super) fn check(source: &Source, file: &File, aliases: &Aliases) -> Vec<Problem> {
    let mut imported = vec![ZEROED.to_owned()];
    for (name, modules) in aliases {
        if modules.contains(&module(&source.path)) {
            imported.push(name.clone());
        }
    }
    for item in &file.items {
        if let Item::Use(item) = item {
            import(&item.tree, "", aliases, &mut imported);
        }
    }
    // Programs of the tests contain only invented values.
    let is_product = source.path.starts_with("onecli-daemon/");
    let mut found = Printed { zeroed: &imported, aliases, is_product, names: Vec::new() };
    found.visit_file(file);
    let problem = |(name, what): (Ident, String)| {
        let message =
            format!("`{name}` derives `Debug` over {what}, which prints its content: implement it by hand");
        Problem::new(source, name.span().start().line, message)
    };
    found.names.into_iter().map(problem).collect()
}

/// Adds the names that a file gives to aliases of other modules.
fn import(tree: &UseTree, module: &str, aliases: &Aliases, imported: &mut Vec<String>) {
    let known = |name: &Ident| {
        let name = name.to_string();
        name == ZEROED || aliases.get(&name).is_some_and(|modules| modules.iter().any(|m| m == module))
    };
    match tree {
        UseTree::Path(path) => import(&path.tree, &path.ident.to_string(), aliases, imported),
        UseTree::Group(group) => group.items.iter().for_each(|tree| import(tree, module, aliases, imported)),
        UseTree::Name(name) if known(&name.ident) => imported.push(name.ident.to_string()),
        UseTree::Rename(name) if known(&name.ident) => imported.push(name.rename.to_string()),
        _ => {}
    }
}

struct Printed<'a> {
    zeroed: &'a [String],
    aliases: &'a Aliases,
    is_product: bool,
    names: Vec<(Ident, String)>,
}

impl Printed<'_> {
    fn look<'f>(&mut self, name: &Ident, attributes: &[Attribute], all: impl Iterator<Item = &'f Fields>) {
        if !attributes.iter().any(derives_debug) {
            return;
        }
        for field in all.flatten() {
            if self.zeroes(field) {
                return self.names.push((name.clone(), format!("a `{ZEROED}`")));
            }
            if let Some(field) = named_like_a_value(field).filter(|_| self.is_product) {
                return self.names.push((name.clone(), format!("the plain `{field}`")));
            }
        }
    }

    fn zeroes(&self, field: &Field) -> bool {
        let aliases = self.aliases;
        let mut holds = Holds { zeroed: self.zeroed, qualified: Some(aliases), found: false };
        holds.visit_type(&field.ty);
        holds.found
    }
}

impl<'ast> Visit<'ast> for Printed<'_> {
    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.look(&item.ident, &item.attrs, std::iter::once(&item.fields));
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        self.look(&item.ident, &item.attrs, item.variants.iter().map(|variant| &variant.fields));
        visit::visit_item_enum(self, item);
    }
}

fn named_like_a_value(field: &Field) -> Option<String> {
    struct Plain(&'static [&'static str], bool);
    impl Visit<'_> for Plain {
        fn visit_ident(&mut self, ident: &Ident) {
            self.1 |= self.0.iter().any(|plain| ident == plain);
        }
    }
    let name = field.ident.as_ref()?.to_string();
    let mut plain = match name.as_str() {
        known if NAMES.contains(&known) => Plain(&PLAIN, false),
        known if known == ENVIRONMENT.0 => Plain(&[ENVIRONMENT.1], false),
        _ => return None,
    };
    plain.visit_type(&field.ty);
    plain.1.then_some(name)
}

fn derives_debug(attribute: &Attribute) -> bool {
    let mut derives = false;
    if attribute.path().is_ident("derive") {
        // The compiler reports a path that does not parse.
        let _ = attribute.parse_nested_meta(|derived| {
            derives |= derived.path.segments.last().is_some_and(|name| name.ident == "Debug");
            Ok(())
        });
    }
    derives
}

struct Holds<'a> {
    zeroed: &'a [String],
    qualified: Option<&'a Aliases>,
    found: bool,
}

impl Visit<'_> for Holds<'_> {
    fn visit_path(&mut self, path: &Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.found |= match names.as_slice() {
            [.., last] if last == ZEROED => true,
            [only] => self.zeroed.contains(only),
            [.., module, last] => {
                let modules = self.qualified.and_then(|aliases| aliases.get(last));
                modules.is_some_and(|modules| modules.contains(module))
            }
            [] => false,
        };
        visit::visit_path(self, path);
    }
}
