//! The direction of dependencies, read from the crate's own source.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Floors from the ground up: a module may name itself and whatever stands on a lower floor.
const FLOORS: &[&[&str]] = &[
    &["error"],
    &["config"],
    &["wire"],
    &["topology", "catalog", "copy"],
    &["backend", "statement", "figures"],
    &["balance", "cache", "merge"],
    &["plan"],
    &["control"],
    &["executor"],
    &["session"],
    &["admin"],
    &["frontend"],
    &["dev"],
    &["cli"],
];

/// A library, and the one module that may name it.
const OWNERS: &[(&str, &str)] = &[
    ("toml", "config"),
    ("sqlparser", "statement"),
    ("pgwire", "wire"),
    ("tokio_postgres", "control"),
    ("deadpool_postgres", "control"),
    ("moka", "cache"),
    ("axum", "admin"),
    ("prometheus_client", "admin"),
];

#[test]
fn modules_name_lower_ones_only() {
    let mut faults = Vec::new();
    for file in rust_files(Path::new("src")) {
        let module = module_of(&file);
        if module != "lib" && module != "main" {
            check(&module, &fs::read_to_string(&file).unwrap(), &mut faults);
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

fn check(module: &str, source: &str, faults: &mut Vec<String>) {
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name));
    let Some(own) = floor(module) else {
        faults.push(format!("{module} has no floor"));
        return;
    };
    for import in source.split("crate::").skip(1).flat_map(imported) {
        if import != module && floor(&import).is_none_or(|other| other >= own) {
            faults.push(format!("{module} may not name {import:?}"));
        }
    }
    for (library, owner) in OWNERS {
        if module != *owner && source.contains(&format!("{library}::")) {
            faults.push(format!("{module} may not name {library}"));
        }
    }
}

/// The modules after one `crate::`, also of a group `crate::{a, b}`.
fn imported(text: &str) -> Vec<String> {
    let word = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    match text.strip_prefix('{').and_then(|group| group.split_once('}')) {
        Some((group, _)) => group.split(',').map(word).filter(|name| !name.is_empty()).collect(),
        None => vec![word(text)],
    }
}

/// `src/plan/route.rs` and `src/plan.rs` are both of module `plan`.
fn module_of(file: &Path) -> String {
    let below_src = file.components().nth(1).unwrap();
    Path::new(below_src.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
}

fn rust_files(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let rust = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.chain(folders.iter().flat_map(|folder| rust_files(folder))).collect()
}
