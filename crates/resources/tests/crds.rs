//! The definitions in `crds/` against Kubernetes' own validation, run offline by `kubectl-validate`.
//!
//! `tests/crds/valid` holds what must be accepted. `tests/crds/invalid` holds one mistake a file; its first line,
//! `# expect: …`, is a fragment of the answer. Limits of length are tried on both sides by files made here, since
//! a text of 32 KB is nothing to read. Transition rules (`oldSelf`) need two objects and so an API server; they are
//! not tried here.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use paifang_resources::definitions;
use serde_json::{Value, json};

const INSTALL: &str = "\
kubectl-validate is missing. Install it with
    go install sigs.k8s.io/kubectl-validate@v0.0.4
(four minutes on one core), or name the program in PAIFANG_KUBECTL_VALIDATE";

#[test]
fn valid_samples_are_accepted() {
    let files = yaml_files(&samples("valid"));
    assert!(files.len() >= 6, "there should be a sample of each kind");
    for (file, failures) in validate(&files) {
        assert!(failures.is_empty(), "{}: {failures:?}", file.display());
    }
}

#[test]
fn invalid_samples_are_refused_for_their_reason() {
    let files = invalid_samples();
    let found = validate(&files);
    let wrong: Vec<String> = files
        .iter()
        .filter(|file| {
            !found[*file]
                .iter()
                .any(|failure| failure.contains(&expected(file)))
        })
        .map(|file| {
            format!(
                "{}\n  expected {:?}\n  found {:?}",
                file.display(),
                expected(file),
                found[file]
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_several_invalid_samples() {
    let expected: Vec<String> = invalid_samples()
        .iter()
        .map(|file| expected(file))
        .collect();
    let rules = rules();
    assert!(rules.len() > 50, "found {} rules only", rules.len());
    for (rule, message) in rules {
        // A transition rule needs an object and its successor.
        if rule.contains("oldSelf") {
            continue;
        }
        let samples = expected
            .iter()
            .filter(|fragment| message.contains(*fragment))
            .count();
        assert!(samples >= 2, "{samples} invalid samples for {message:?}");
    }
}

#[test]
fn limits_are_accepted_and_one_more_is_refused() {
    let folder = env::temp_dir().join(format!("paifang-limits-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut cases = Vec::new();
    for (index, limit) in LIMITS.iter().enumerate() {
        let name = |end: &str| folder.join(format!("{index}-{end}.yaml"));
        let (at, over) = (name("at"), name("over"));
        fs::write(&at, limit.object(limit.most).to_string()).unwrap();
        fs::write(&over, limit.object(limit.most + 1).to_string()).unwrap();
        cases.push((limit, at, over));
    }
    let files: Vec<PathBuf> = cases
        .iter()
        .flat_map(|(_, at, over)| [at.clone(), over.clone()])
        .collect();

    let found = validate(&files);
    fs::remove_dir_all(&folder).unwrap();

    for (limit, at, over) in cases {
        let name = format!("{} {}", limit.sample, limit.field);
        assert!(
            found[&at].is_empty(),
            "{name}, {}: {:?}",
            limit.most,
            found[&at]
        );
        assert!(
            found[&over]
                .iter()
                .any(|failure| failure.contains("Too long") || failure.contains("Too many")),
            "{name}, {}: {:?}",
            limit.most + 1,
            found[&over]
        );
    }
}

/// The most of something: characters of a text, or entries of a list or map.
struct Limit {
    /// A file in `tests/crds/valid` to start from.
    sample: &'static str,
    /// JSON pointer to the field.
    field: &'static str,
    most: usize,
    fill: fn(usize) -> Value,
}

const LIMITS: &[Limit] = &[
    limit("apigroup.yaml", "/spec/displayName", 50, text),
    limit("apigroup.yaml", "/spec/displayName", 50, chinese),
    limit("apigroup.yaml", "/spec/description", 180, chinese),
    limit(
        "apigroup.yaml",
        "/spec/stageVariables/TEST",
        50,
        map_of_text,
    ),
    limit(
        "apigroup.yaml",
        "/spec/stageVariables/TEST/region",
        1024,
        chinese,
    ),
    limit("apigroup.yaml", "/spec/stageVariables", 20, map_of_maps),
    limit("backendservice-mock.yaml", "/spec/stages", 20, map_of_mocks),
    limit(
        "backendservice-mock.yaml",
        "/spec/stages/RELEASE/mock/body",
        32768,
        chinese,
    ),
    limit(
        "backendservice-mock.yaml",
        "/spec/stages/RELEASE/mock/headers",
        32,
        headers,
    ),
    limit(
        "backendservice-vpc.yaml",
        "/spec/stages/RELEASE/vpc/addresses",
        32,
        addresses,
    ),
    limit("api.yaml", "/spec/displayName", 50, text),
    limit("api.yaml", "/spec/description", 2000, chinese),
    limit("api.yaml", "/spec/response/successSample", 32768, chinese),
    limit("api.yaml", "/spec/response/failureSample", 16384, chinese),
    limit("api.yaml", "/spec/response/errorCodes", 100, error_codes),
    limit("api.yaml", "/spec/stages", 20, map_of_maps),
    limit("api.yaml", "/spec/request/parameters/1/name", 64, text),
    limit(
        "api.yaml",
        "/spec/request/parameters/2/enum",
        100,
        list_of_text,
    ),
    limit("api.yaml", "/spec/request/parameters/3/pattern", 1024, text),
    limit(
        "api.yaml",
        "/spec/request/parameters/4/jsonSchema",
        16384,
        text,
    ),
    limit(
        "api.yaml",
        "/spec/request/parameters/4/description",
        2000,
        chinese,
    ),
    limit("api.yaml", "/spec/backend/constants", 50, constants),
    limit("api.yaml", "/spec/backend/constants/0/value", 2048, chinese),
    limit("api.yaml", "/spec/backend/system", 50, system),
    limit("app.yaml", "/spec/displayName", 26, chinese),
    limit("app.yaml", "/spec/description", 180, text),
    limit("app.yaml", "/spec/credentials", 20, credentials),
    limit("authorization.yaml", "/spec/apis", 100, references),
    limit("authorization.yaml", "/spec/apps", 100, references),
    limit("authorization.yaml", "/spec/description", 180, text),
];

const fn limit(
    sample: &'static str,
    field: &'static str,
    most: usize,
    fill: fn(usize) -> Value,
) -> Limit {
    Limit {
        sample,
        field,
        most,
        fill,
    }
}

// === impl Limit ===

impl Limit {
    /// The sample with `size` of the field. YAML reads the JSON that this is written as.
    fn object(&self, size: usize) -> Value {
        let path = samples("valid").join(self.sample);
        let mut object: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        *object
            .pointer_mut(self.field)
            .expect("the sample has the field") = (self.fill)(size);
        object
    }
}

fn text(size: usize) -> Value {
    "a".repeat(size).into()
}

fn chinese(size: usize) -> Value {
    "天".repeat(size).into()
}

fn numbered(size: usize, entry: impl Fn(usize) -> Value) -> Value {
    (0..size).map(entry).collect()
}

fn keyed(size: usize, value: Value) -> Value {
    Value::Object(
        (0..size)
            .map(|index| (format!("A{index}"), value.clone()))
            .collect(),
    )
}

fn map_of_text(size: usize) -> Value {
    keyed(size, json!("a"))
}

fn map_of_maps(size: usize) -> Value {
    keyed(size, json!({}))
}

fn map_of_mocks(size: usize) -> Value {
    keyed(size, json!({"mock": {}}))
}

fn list_of_text(size: usize) -> Value {
    numbered(size, |index| json!(format!("a{index}")))
}

fn headers(size: usize) -> Value {
    numbered(size, |_| json!({"name": "a", "value": "b"}))
}

fn addresses(size: usize) -> Value {
    numbered(size, |index| json!(format!("a{index}:80")))
}

fn error_codes(size: usize) -> Value {
    numbered(size, |index| json!({"code": index.to_string()}))
}

fn constants(size: usize) -> Value {
    numbered(
        size,
        |index| json!({"name": format!("a{index}"), "in": "Query", "value": ""}),
    )
}

fn system(size: usize) -> Value {
    numbered(
        size,
        |index| json!({"name": format!("a{index}"), "in": "Query", "from": "CaAppId"}),
    )
}

fn credentials(size: usize) -> Value {
    numbered(
        size,
        |index| json!({"name": format!("a{index}"), "type": "KeyPair"}),
    )
}

fn references(size: usize) -> Value {
    numbered(size, |index| json!({"name": format!("a{index}")}))
}

/// All rules of the six definitions with their messages.
fn rules() -> BTreeSet<(String, String)> {
    let mut rules = BTreeSet::new();
    collect_rules(&serde_json::to_value(definitions()).unwrap(), &mut rules);
    rules
}

fn collect_rules(value: &Value, rules: &mut BTreeSet<(String, String)>) {
    for rule in value["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let part = |name: &str| {
            rule[name]
                .as_str()
                .expect("a rule has a text and a message")
                .to_owned()
        };
        rules.insert((part("rule"), part("message")));
    }
    match value {
        Value::Object(map) => map.values().for_each(|value| collect_rules(value, rules)),
        Value::Array(list) => list.iter().for_each(|value| collect_rules(value, rules)),
        _ => {}
    }
}

/// What is wrong with each file, in one run of the program.
fn validate(files: &[PathBuf]) -> BTreeMap<PathBuf, Vec<String>> {
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    let output = Command::new(program())
        .arg("--local-crds")
        .arg(crds)
        .args(["--output", "json"])
        .args(files)
        .output()
        .unwrap_or_else(|error| panic!("{INSTALL}\n({error})"));
    let text = String::from_utf8_lossy(&output.stdout);
    let found: BTreeMap<PathBuf, Vec<Value>> =
        serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
        });
    assert_eq!(found.len(), files.len(), "every file gets a verdict");
    found
        .into_iter()
        .map(|(file, verdicts)| {
            assert!(!verdicts.is_empty(), "{} has no object", file.display());
            (file, verdicts.iter().filter_map(failure).collect())
        })
        .collect()
}

fn failure(verdict: &Value) -> Option<String> {
    match verdict["status"].as_str() {
        Some("Success") => None,
        _ => Some(
            verdict["message"]
                .as_str()
                .unwrap_or("no message")
                .to_owned(),
        ),
    }
}

/// The program: `PAIFANG_KUBECTL_VALIDATE`, or where `go install` puts it, or on the PATH.
fn program() -> PathBuf {
    if let Some(named) = env::var_os("PAIFANG_KUBECTL_VALIDATE") {
        return named.into();
    }
    let folders = ["GOBIN", "GOPATH", "HOME"]
        .into_iter()
        .zip(["", "bin", "go/bin"]);
    folders
        .filter_map(|(variable, below)| Some(PathBuf::from(env::var_os(variable)?).join(below)))
        .map(|folder| folder.join("kubectl-validate"))
        .find(|path| path.is_file())
        .unwrap_or_else(|| "kubectl-validate".into())
}

fn expected(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let first = text.lines().next().unwrap_or_default();
    let fragment = first.strip_prefix("# expect: ");
    fragment
        .unwrap_or_else(|| panic!("{} does not begin with `# expect: `", file.display()))
        .to_owned()
}

fn invalid_samples() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(samples("invalid"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert_eq!(folders.len(), 6, "one folder for each kind");
    folders
        .iter()
        .flat_map(|folder| yaml_files(folder))
        .collect()
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn samples(which: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/crds")
        .join(which)
}
