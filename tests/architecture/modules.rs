//! The modules of `src/` and which of them use which, followed through re-exports to where a thing is.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::TokenTree;

use super::rust::{self, Path};
use super::{files, read};

/// A module by its names from the crate's root: `["socket", "parser"]`; the root itself has none.
pub type Module = Vec<String>;

/// Product code: modules that are built for tests only are not in it.
pub struct Modules {
    /// Module → its file.
    pub files: BTreeMap<Module, String>,
    code: BTreeMap<Module, Vec<TokenTree>>,
    paths: BTreeMap<Module, Vec<Path>>,
}

/// One module uses something of another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    pub from: Module,
    /// Where the thing is.
    pub to: Module,
    /// The thing, with the module in which it is.
    pub thing: Vec<String>,
    /// The thing as it is named here, from the crate's root.
    pub named: Vec<String>,
    /// A `pub use`.
    pub exported: bool,
}

impl Modules {
    pub fn read() -> Self {
        let mut modules = Self { files: BTreeMap::new(), code: BTreeMap::new(), paths: BTreeMap::new() };
        modules.add(Module::new(), "src/lib.rs");
        modules
    }

    /// Adds a file and those of the modules it declares, which are at `name.rs` or `name/mod.rs` below its folder.
    fn add(&mut self, module: Module, path: &str) {
        let code = rust::product_code(&read(path));
        for name in rust::declared_modules(&code) {
            let child = [&module[..], &[name]].concat();
            let place = format!("src/{}", child.join("/"));
            let candidates = [format!("{place}.rs"), format!("{place}/mod.rs")];
            if let Some(file) = candidates.iter().find(|it| super::root().join(it).exists()) {
                self.add(child, file);
            }
        }
        self.paths.insert(module.clone(), rust::paths(&code));
        self.code.insert(module.clone(), code);
        self.files.insert(module, path.to_owned());
    }

    /// The product code of every file.
    pub fn code(&self) -> impl Iterator<Item = (&Module, &str, &[TokenTree])> {
        self.code.iter().map(|(module, code)| (module, &*self.files[module], &**code))
    }

    /// All uses of one module by another, those of `lib.rs` aside: it is the table of contents.
    pub fn arrows(&self) -> BTreeSet<Arrow> {
        let mut arrows = BTreeSet::new();
        for (from, paths) in self.paths.iter().filter(|(from, _)| !from.is_empty()) {
            for path in paths {
                let Some(named) = self.absolute(from, path) else { continue };
                let (to, thing) = self.home(named.clone(), 0);
                if to != *from && !to.is_empty() {
                    arrows.insert(Arrow { from: from.clone(), to, thing, named, exported: path.exported });
                }
            }
        }
        arrows
    }

    /// From the crate's root; nothing for a path into another crate, or to something of the same file.
    fn absolute(&self, from: &Module, path: &Path) -> Option<Vec<String>> {
        let mut here = [&from[..], &path.within].concat();
        let supers = path.segments.iter().take_while(|it| *it == "super").count();
        let rest = match &**path.segments.first()? {
            "crate" => return Some(path.segments[1..].to_vec()),
            "self" => &path.segments[1..],
            "super" => {
                here.truncate(here.len().checked_sub(supers)?);
                &path.segments[supers..]
            }
            child if self.files.contains_key(&[&here[..], &[child.to_owned()]].concat()) => {
                &path.segments[..]
            }
            _ => return None,
        };
        Some([&here[..], rest].concat())
    }

    /// The module in which a thing really is, and its path there.
    fn home(&self, thing: Vec<String>, followed: usize) -> (Module, Vec<String>) {
        let known = (0..=thing.len()).rev().find(|length| self.files.contains_key(&thing[..*length]));
        let module = thing[..known.unwrap_or_default()].to_vec();
        let exported = thing.get(module.len()).filter(|_| followed < EXPORTS_FOLLOWED_MAX).and_then(|name| {
            let named = |path: &&Path| path.within.is_empty() && path.alias.as_ref() == Some(name);
            let mut sources = self.paths[&module].iter().filter(named);
            sources.find_map(|path| self.absolute(&module, path)).filter(|source| *source != thing)
        });
        match exported {
            Some(source) => {
                let rest = &thing[module.len() + 1..];
                self.home([&source[..], rest].concat(), followed + 1)
            }
            None => (module, thing),
        }
    }
}

/// `src/socket/parser.rs` and `src/socket/parser/mod.rs` → `socket::parser`, whether tests or not.
pub fn all_source_files() -> Vec<String> {
    files("src", &[".rs"])
}

const EXPORTS_FOLLOWED_MAX: usize = 8;
