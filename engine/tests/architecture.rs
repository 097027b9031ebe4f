//! The rules of the layout: which module may import which, read from the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Plain data and pure functions: of the crate they know only each other.
const PURE: [&str; 5] = ["config", "error", "outcome", "retry", "route"];

type Names = BTreeSet<String>;

#[test]
fn the_pure_modules_know_neither_tokio_nor_nats() {
    let modules = modules();
    for name in PURE {
        let code = &modules[name];
        for library in ["tokio", "async_nats"] {
            assert!(!code.contains(library), "{name} knows {library}");
        }
        for import in imports(code) {
            assert!(PURE.contains(&import.as_str()), "{name} is pure, yet it imports {import}");
        }
    }
}

#[test]
fn only_the_consumption_wires() {
    let modules = modules();
    assert!(modules.contains_key("consumption"), "there is no consumption");
    for (name, code) in modules.iter().filter(|(name, _)| *name != "lib") {
        let wires = imports(code).contains("consumption");
        assert!(!wires || name == "consumption", "{name} imports consumption; only lib may");
    }
}

#[test]
fn imports_go_down_only() {
    let modules = modules();
    let names: Names = modules.keys().cloned().collect();
    // Anything but a module is something that lib exports again, and lib is above everything.
    let resolve = |import: String| if names.contains(&import) { import } else { "lib".to_owned() };
    let mut above: BTreeMap<String, Names> = modules
        .iter()
        .map(|(name, code)| (name.clone(), imports(code).into_iter().map(resolve).collect()))
        .collect();
    above.insert("lib".to_owned(), names.into_iter().filter(|name| name != "lib").collect());
    for (name, below) in &mut above {
        below.remove(name);
    }
    assert_eq!(circles(above), BTreeMap::new(), "these import each other in circles");
}

#[test]
fn the_engine_knows_nothing_of_python() {
    for path in rust_files("").into_iter().chain([crate_path("Cargo.toml")]) {
        let is_this_rule = path.ends_with("tests/architecture.rs");
        assert!(is_this_rule || !read(&path).contains("pyo3"), "{} knows pyo3", path.display());
    }
}

#[test]
fn every_log_event_names_its_target() {
    let macros = ["debug!(", "info!(", "warn!(", "error!("];
    for path in rust_files("src") {
        let code = code(&path);
        for event in macros.iter().flat_map(|name| code.split(name).skip(1)) {
            assert!(event.trim_start().starts_with("target: "), "{} logs without a target", path.display());
        }
    }
}

#[test]
fn every_log_event_about_a_consumer_names_it() {
    let macros = ["debug!(", "info!(", "warn!(", "error!("];
    for path in rust_files("src") {
        let code = code(&path);
        for event in macros.iter().flat_map(|name| code.split(name).skip(1)) {
            // Its fields stand before its text.
            let Some((fields, text)) = event.split_once('"') else { continue };
            let is_about_one = ["CONSUMER", "HANDLER", "DEAD_LETTER"]
                .iter()
                .any(|target| fields.trim_start().starts_with(&format!("target: {target}")));
            let is_of_the_process = text.starts_with("The memory for this worker's metrics");
            let names_it = fields.contains("consumer =") || fields.contains("consumer,");
            assert!(!is_about_one || is_of_the_process || names_it, "{}: {text:.60}", path.display());
        }
    }
}

#[test]
fn every_item_that_the_root_exports_has_an_example() {
    // Types that only a signature names; what makes them has the example.
    let named_only = ["Result", "TokenError", "Classified", "Observed", "HandlerFn", "WithState"];
    let files: Vec<_> = rust_files("src").iter().map(|path| read(path)).collect();
    let names = exports(&read(&crate_path("src/lib.rs")));
    assert!(names.contains("Router") && names.contains("replay"), "{names:?}");
    for name in names.iter().filter(|name| !named_only.contains(&name.as_str())) {
        let documentation = files.iter().find_map(|file| documentation(file, name));
        let documentation = documentation.unwrap_or_else(|| panic!("{name} is not found"));
        assert!(documentation.contains("```"), "{name} has no example");
    }
}

/// The names in `pub use` lines without `#[doc(hidden)]`, without modules.
fn exports(lib: &str) -> Names {
    let statements = lib.split(';').map(str::trim);
    let shown = statements.filter(|statement| !statement.contains("#[doc(hidden)]"));
    let uses = shown.filter_map(|statement| Some(statement.split_once("pub use ")?.1));
    let names = uses.filter_map(|path| Some(path.split_once("::")?.1)).flat_map(first_names);
    names.filter(|name| !["read", "stream"].contains(&name.as_str())).collect()
}

/// The comment above the definition of `name`, with the attributes in between.
fn documentation(file: &str, name: &str) -> Option<String> {
    let is_definition = |line: &str| {
        let line = line.strip_prefix("pub ").map(|line| line.strip_prefix("async ").unwrap_or(line));
        let item = line
            .and_then(|line| line.split_once(' ').filter(|(kind, _)| *kind != "mod").map(|(_, item)| item));
        item.and_then(|item| item.strip_prefix(name))
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let at = file.lines().position(is_definition)?;
    let above: Vec<_> = file.lines().take(at).collect();
    let start = above.iter().rposition(|line| line.is_empty()).unwrap_or_default();
    Some(above[start..].join("\n"))
}

#[test]
fn the_readme_asks_for_this_version() {
    let readme = read(&crate_path("README.md"));
    let dependency = format!("nats-consumer = \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(readme.contains(&dependency), "README.md lacks {dependency}");
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let code =
        "use crate::error::Error;\nuse crate::{retry::{Next, RetryPolicy}, route};\ncrate::settle::ack()";
    let expected = ["error", "retry", "route", "settle"].map(str::to_owned);
    assert_eq!(imports(code), Names::from(expected));
}

#[test]
fn a_circle_is_found_without_what_stands_above_and_below_it() {
    let edges = [("lib", "a"), ("a", "b"), ("b", "a"), ("b", "leaf")];
    let mut imports: BTreeMap<String, Names> = BTreeMap::from([("leaf".to_owned(), Names::new())]);
    for (name, import) in edges {
        imports.entry(name.to_owned()).or_default().insert(import.to_owned());
    }
    let found: Vec<_> = circles(imports).into_keys().collect();
    assert_eq!(found, ["a", "b"]);
}

/// The modules of the crate's top level, each with the code of all its files.
fn modules() -> BTreeMap<String, String> {
    let src = crate_path("src");
    let mut modules = BTreeMap::<String, String>::new();
    for path in rust_files("src") {
        let within = path.strip_prefix(&src).unwrap().with_extension("");
        let name = within.iter().next().unwrap().to_str().unwrap().to_owned();
        modules.entry(name).or_default().push_str(&code(&path));
    }
    modules
}

/// The first name of every path that starts with `crate::`.
fn imports(code: &str) -> Names {
    code.split("crate::").skip(1).flat_map(first_names).collect()
}

fn first_names(path: &str) -> Vec<String> {
    let first = |path: &str| {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        path.trim_start().chars().take_while(|c| is_name(*c)).collect::<String>()
    };
    match path.strip_prefix('{') {
        None => vec![first(path)],
        Some(group) => members(group).into_iter().map(first).filter(|name| !name.is_empty()).collect(),
    }
}

/// The members of `{...}`, given from behind its opening brace.
fn members(group: &str) -> Vec<&str> {
    let mut members = Vec::new();
    let (mut depth, mut start) = (1, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            members.push(&group[start..at]);
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    members
}

/// The imports that are left when every module that imports nothing, or that nothing imports, is taken away,
/// repeatedly, until there is none.
fn circles(mut imports: BTreeMap<String, Names>) -> BTreeMap<String, Names> {
    loop {
        let before = imports.len();
        imports.retain(|_, below| !below.is_empty());
        let left: Names = imports.keys().cloned().collect();
        let imported: Names = imports.values().flatten().cloned().collect();
        imports.retain(|name, below| {
            below.retain(|name| left.contains(name));
            imported.contains(name)
        });
        if imports.len() == before {
            return imports;
        }
    }
}

/// The text of a file without its comments, which may speak of anything.
fn code(path: &Path) -> String {
    let text = read(path);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Every Rust file of the crate in or below `folder`.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![crate_path(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    files
}

fn crate_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
