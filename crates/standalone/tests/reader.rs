//! What is said about a folder, to the line and column.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod folder;

use folder::{Scratch, check};

const GROUP: &str =
    "apiVersion: paifang.dev/v1alpha1\nkind: ApiGroup\nmetadata: {name: g}\nspec: {}\n";

fn said(text: &str) -> Vec<String> {
    let scratch = Scratch::new();
    scratch.write("a.yaml", text);
    check(&scratch)
}

#[test]
fn a_good_file_is_accepted_without_a_word() {
    assert_eq!(said(GROUP), [""; 0]);
    assert_eq!(said(""), [""; 0]);
    assert_eq!(said("# nothing\n---\n---\n"), [""; 0]);
}

#[test]
fn each_bad_file_is_told_by_line_field_and_fix() {
    let api = |line: &str| {
        format!(
            "{GROUP}---\napiVersion: paifang.dev/v1alpha1\nkind: Api\nmetadata: {{name: a}}\nspec:\n  groupRef: {{name: g}}\n  auth: {{type: Anonymous}}\n  request:\n    protocols: [HTTP]\n    method: GET\n{line}\n  backend:\n    mock: {{statusCode: 200}}\n  stages: {{RELEASE: {{}}}}\n"
        )
    };
    let secret =
        |lines: &str| format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n{lines}");
    for (text, expected) in [
        (api("    path: /a\n    pathh: /b"),
            "error a.yaml:16:5: Api default/a: spec.request.pathh: unknown field; did you mean `path`?"),
        (api("    pth: /a"), "error a.yaml:12:3: Api default/a: spec.request.path: is missing; add it"),
        (api("    path: 5"),
            "error a.yaml:15:5: Api default/a: spec.request.path: takes text, not a number; put it in quotes: \"5\""),
        (api("    path: /a\n    mode: Maping"),
            "error a.yaml:16:5: Api default/a: spec.request.mode: `Maping` is not a value it takes; did you mean `Mapping`?"),
        (api("    path: /a\n    parameters: {name: x}"),
            "error a.yaml:16:5: Api default/a: spec.request.parameters: takes a list, not a map; begin each entry with `- `"),
        ("a: [1\nb: 2\n".to_owned(), "error a.yaml:2:2: is not YAML: "),
        ("kind: Api\nmetadata: {name: x}\n".to_owned(), "error a.yaml:1:1: apiVersion: is missing; add `apiVersion: paifang.dev/v1alpha1`"),
        ("apiVersion: v1\n".to_owned(), "error a.yaml:1:1: kind: is missing; add it, as in `kind: Api`"),
        ("apiVersion: paifang.dev/v1alpha1\nkind: Apis\n".to_owned(),
            "error a.yaml:2:1: kind: `Apis` is not a kind of paifang.dev; did you mean `Api`?"),
        ("apiVersion: paifang.dev/v1\nkind: Api\n".to_owned(),
            "error a.yaml:1:1: apiVersion: `paifang.dev/v1` is not a version that this Paifang knows; write paifang.dev/v1alpha1"),
        ("apiVersion: apps/v1\nkind: Deployment\n".to_owned(),
            "warning a.yaml:2:1: kind: kind Deployment of apps/v1 is none that Paifang reads; it is ignored"),
        ("- 1\n".to_owned(), "warning a.yaml:1:1: the document is a list, not an object; it is ignored"),
        ("services: {}\n".to_owned(),
            "warning a.yaml:1:1: the document has neither apiVersion nor kind, so it is no object; it is ignored"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {}\n".to_owned(), "error a.yaml:3:1: Secret: metadata.name: is missing; add it"),
        ("apiVersion: v1\nkind: Secret\nmetadata:\n  name: ../x\n".to_owned(),
            "error a.yaml:4:3: Secret: metadata.name: `../x` is not a name; use lower-case letters, digits, `-` and `.`"),
        ("apiVersion: v1\nkind: Secret\nmetadata:\n  name: 7\n".to_owned(),
            "error a.yaml:4:3: Secret: metadata.name: takes text, not a number; put it in quotes"),
        ("apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  namespace: a.b\n".to_owned(),
            "error a.yaml:5:3: Secret: metadata.namespace: `a.b` is not a name; use lower-case letters, digits and `-`"),
        (secret("data:\n  key: 'not base64!'\n"),
            "error a.yaml:6:3: Secret default/s: data.key: is not Base64; encode it, or write it as it is below `stringData`"),
        (secret("stringdata: {a: b}\n"), "error a.yaml:5:1: Secret default/s: stringdata: unknown field; did you mean `stringData`?"),
        (secret("stringData: {a: 1}\n"),
            "error a.yaml:5:14: Secret default/s: stringData.a: takes text, not a number; put it in quotes: \"1\""),
        (secret("stringData: {a: b}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"),
            "error a.yaml:9:12: Secret default/s: is in a.yaml:4 too, and that one counts; keep one of the two"),
        ("apiVersion: v1\nkind: Service\nmetadata:\n  name: s\n  annotations:\n    paifang.dev/standalone-endpoints: localhost:80\nspec: {ports: [{port: 80}]}\n".to_owned(),
            "error a.yaml:6:5: Service default/s: metadata.annotations.paifang.dev/standalone-endpoints: `localhost:80` is not an IP address with a port"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  ports:\n  - {port: 80000}\n".to_owned(),
            "error a.yaml:6:6: Service default/s: spec.ports[0].port: 80000 is out of range; use 1 to 65535"),
        ("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1}\nendpoints: []\n".to_owned(),
            "error a.yaml:3:1: EndpointSlice default/s-1: metadata.labels.kubernetes.io/service-name: is missing"),
        ("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s-1\n  labels: {kubernetes.io/service-name: s}\n".to_owned(),
            "warning a.yaml:5:3: EndpointSlice default/s-1: there is no Service default/s, so these endpoints are ignored"),
        ("apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: s}\n  dta: {}\n".to_owned(),
            "error a.yaml:7:3: Secret default/s: dta: unknown field; did you mean `data`?"),
    ] {
        let said = said(&text);
        assert!(said.iter().any(|said| said.starts_with(expected)), "{text}\nlacks {expected}\nsaid {said:#?}");
    }
}

#[test]
fn what_the_compiler_refuses_is_told_with_its_line() {
    let api = |group: &str, parameter: &str| {
        format!(
            "{GROUP}---\napiVersion: paifang.dev/v1alpha1\nkind: Api\nmetadata: {{name: a}}\nspec:\n  groupRef: {{name: {group}}}\n  auth: {{type: Anonymous}}\n  request:\n    protocols: [HTTP]\n    method: GET\n    path: /a\n    parameters:\n    - {{name: x, in: Query}}\n    - name: y\n      in: Query\n{parameter}  backend: {{mock: {{statusCode: 200}}}}\n  stages: {{RELEASE: {{}}}}\n"
        )
    };
    for (text, expected) in [
        (
            api("nobody", ""),
            "error a.yaml:10:3: Api default/a: spec.groupRef: there is no ApiGroup default/nobody",
        ),
        (
            api("g", "      pattern: '('\n"),
            "error a.yaml:20:7: Api default/a: spec.request.parameters[1].pattern: not a regular expression",
        ),
    ] {
        let said = said(&text);
        assert!(
            said.len() == 1 && said[0].starts_with(expected),
            "{said:#?}"
        );
    }
}

#[test]
fn the_same_object_in_two_files_is_told_with_both() {
    let scratch = Scratch::new();
    scratch.write("a.yaml", GROUP);
    scratch.write("b/c.yml", GROUP);
    assert_eq!(
        check(&scratch),
        [
            "error b/c.yml:3:12: ApiGroup default/g: is in a.yaml:3 too, and that one counts; keep one of the two"
        ]
    );
}

#[test]
fn only_yaml_that_does_not_begin_with_a_dot_is_read() {
    let scratch = Scratch::new();
    for name in [
        "a.txt",
        ".a.yaml",
        ".git/a.yaml",
        "a.yaml~",
        "#a.yaml#",
        "a.yaml.swp",
        "yaml",
    ] {
        scratch.write(name, "broken: [");
    }
    assert_eq!(check(&scratch), [""; 0]);
}

#[test]
fn links_are_followed_but_not_in_circles() {
    let scratch = Scratch::new();
    scratch.write("sub/a.yaml", "broken: [");
    std::os::unix::fs::symlink(scratch.path(""), scratch.path("sub/up")).unwrap();
    std::os::unix::fs::symlink(scratch.path("sub/a.yaml"), scratch.path("b.yaml")).unwrap();
    let said = check(&scratch);
    let files: Vec<_> = said
        .iter()
        .map(|said| said.split(':').next().unwrap())
        .collect();
    assert_eq!(files, ["error b.yaml", "error sub/a.yaml"]);
}

#[test]
fn what_is_too_long_or_no_text_is_told() {
    let scratch = Scratch::new();
    scratch.write("a.yaml", &"# x\n".repeat(5 << 20));
    std::fs::write(scratch.path("b.yaml"), b"a: 1\nb: \xff\n").unwrap();
    assert_eq!(
        check(&scratch),
        [
            "error a.yaml: has 20971520 bytes, more than 16777216; split it into several files",
            "error b.yaml: line 2 is not UTF-8; save it as UTF-8",
        ]
    );
}
