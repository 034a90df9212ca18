//! Generated files: what they should contain, writing them, and noticing stale ones.
//!
//! The folders in [`FOLDERS`] hold nothing but generated files; one that no type stands for any more is stale too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

const HEADER: &str =
    "# Generated from the types in crates/resources by `cargo xtask codegen`. Do not edit.\n";

/// The chart's copies differ from `crds/` by one annotation only: Helm must not remove a definition, as its objects would go with it.
const CHART: &str = "charts/paifang-crds/templates";
const FOLDERS: [&str; 2] = ["crds", CHART];

/// Writes every generated file that differs and removes those that nothing generates any more.
pub(crate) fn write() -> Result<()> {
    let root = root();
    let expected = files()?;
    for path in stale(&root, &expected)? {
        let target = root.join(&path);
        match expected.get(&path) {
            Some(text) => {
                let folder = target.parent().context("a generated file has a folder")?;
                fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make {}", folder.display()))?;
                fs::write(&target, text)
                    .with_context(|| format!("cannot write {}", target.display()))?;
            }
            None => fs::remove_file(&target)
                .with_context(|| format!("cannot remove {}", target.display()))?,
        }
    }
    Ok(())
}

/// Fails when a generated file is missing, differs, or should not be there.
pub(crate) fn check() -> Result<()> {
    let stale = stale(&root(), &files()?)?;
    if stale.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = stale
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    bail!(
        "stale: {}; run `cargo xtask codegen` and commit the result",
        names.join(", ")
    );
}

/// Every generated file, by its path from the root of the repository.
fn files() -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for definition in paifang_resources::definitions() {
        let name = format!(
            "{}.{}.yaml",
            definition.spec.group, definition.spec.names.plural
        );
        // Through a `Value`, whose maps are ordered: the same bytes every time.
        let mut value = serde_json::to_value(definition)?;
        files.insert(Path::new("crds").join(&name), file(&value)?);
        value["metadata"]["annotations"]["helm.sh/resource-policy"] = "keep".into();
        files.insert(Path::new(CHART).join(&name), template(&file(&value)?)?);
    }
    Ok(files)
}

fn file(value: &serde_json::Value) -> Result<String> {
    Ok(format!("{HEADER}{}", yaml(value)?))
}

/// The text as a template of Helm that gives just this text.
fn template(text: &str) -> Result<String> {
    if text.contains("{{") {
        bail!("a definition contains `{{{{`, which Helm would take for its own");
    }
    Ok(text.to_owned())
}

fn yaml(value: &serde_json::Value) -> Result<String> {
    // No folded scalars: a rule or a pattern stays on one line, where it can be searched for.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options).context("cannot write YAML")
}

/// The paths whose file is missing, differs from `expected`, or is not expected.
fn stale(root: &Path, expected: &BTreeMap<PathBuf, String>) -> Result<BTreeSet<PathBuf>> {
    let mut stale = BTreeSet::new();
    for (path, text) in expected {
        if read(&root.join(path))?.as_ref() != Some(text) {
            stale.insert(path.clone());
        }
    }
    for path in present(root)? {
        if !expected.contains_key(&path) {
            stale.insert(path);
        }
    }
    Ok(stale)
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The files in [`FOLDERS`].
fn present(root: &Path) -> Result<Vec<PathBuf>> {
    let mut present = Vec::new();
    for folder in FOLDERS {
        let path = root.join(folder);
        match fs::read_dir(&path) {
            Ok(entries) => {
                for entry in entries {
                    present.push(Path::new(folder).join(entry?.file_name()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        }
    }
    Ok(present)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_files_are_up_to_date() {
        check().unwrap();
    }

    #[test]
    fn a_missing_an_edited_and_a_left_over_file_are_stale() {
        let root = std::env::temp_dir().join(format!("paifang-xtask-{}", std::process::id()));
        fs::create_dir_all(root.join("crds")).unwrap();
        fs::create_dir_all(root.join(CHART)).unwrap();
        fs::write(root.join("crds/same.yaml"), "a").unwrap();
        fs::write(root.join("crds/edited.yaml"), "b").unwrap();
        fs::write(root.join("crds/left-over.yaml"), "c").unwrap();
        fs::write(root.join(CHART).join("left-over.yaml"), "c").unwrap();
        let expected = ["same", "edited", "missing"]
            .map(|name| (PathBuf::from(format!("crds/{name}.yaml")), "a".to_owned()));

        let found = stale(&root, &BTreeMap::from(expected)).unwrap();
        fs::remove_dir_all(&root).unwrap();

        let mut names = BTreeSet::from(
            ["edited", "left-over", "missing"]
                .map(|name| PathBuf::from(format!("crds/{name}.yaml"))),
        );
        names.insert(Path::new(CHART).join("left-over.yaml"));
        assert_eq!(found, names);
    }

    #[test]
    fn a_definition_that_helm_would_read_otherwise_is_refused() {
        assert!(template("pattern: a{1,2}").is_ok());
        assert!(template("pattern: {{ .x }}").is_err());
    }

    #[test]
    fn the_chart_has_the_same_definitions_and_keeps_them() {
        let files = files().unwrap();
        let (chart, plain): (Vec<_>, Vec<_>) =
            files.iter().partition(|(path, _)| path.starts_with(CHART));
        assert_eq!(chart.len(), 6);
        for ((path, text), (_, plain)) in chart.into_iter().zip(plain) {
            let kept = "  annotations:\n    helm.sh/resource-policy: keep\n";
            assert!(text.contains(kept), "{}", path.display());
            assert_eq!(&text.replace(kept, ""), plain, "{}", path.display());
        }
    }

    #[test]
    fn the_same_types_give_the_same_bytes() {
        assert_eq!(files().unwrap(), files().unwrap());
    }
}
