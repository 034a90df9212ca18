//! What is said before an object is written or deleted: one thing done, one refusal or warning expected.

use paifang_compiler::{
    Admission, AnyObject, Compiler, Kind, Memory, Object, ObjectId, Objects, Request, Touched,
    problems_of_spec,
};
use serde_json::Value;

use crate::support::{documents, gather, id, settings};

/// Eight Apis through one service, an Api of its own, an App, an Authorization, two domains.
fn world() -> Vec<Value> {
    let mut text = r#"
kind: ApiGroup
metadata: {name: g, namespace: demo}
spec: {stageVariables: {TEST: {v: "1"}, RELEASE: {v: "1"}}}
---
kind: ApiGroup
metadata: {name: free, namespace: demo}
spec: {}
---
kind: BackendService
metadata: {name: b, namespace: demo}
spec: {type: HTTP, stages: {TEST: {http: {address: "http://10.0.0.1"}}, RELEASE: {http: {address: "http://10.0.0.2"}}}}
---
kind: BackendService
metadata: {name: kept, namespace: demo}
spec: {type: HTTP, deletionPolicy: Block, stages: {TEST: {http: {address: "http://10.0.0.1"}}, RELEASE: {http: {address: "http://10.0.0.2"}}}}
---
kind: Api
metadata: {name: own, namespace: demo}
spec: {groupRef: {name: g}, request: {method: GET, path: /own}, backend: {serviceRef: {name: kept}}, stages: {RELEASE: {}}}
---
kind: App
metadata: {name: p, namespace: demo}
spec: {credentials: [{name: k, type: AppCode, secretRef: {name: k}}]}
---
{kind: Secret, metadata: {name: k, namespace: demo}, stringData: {appCode: code}}
---
kind: App
metadata: {name: lonely, namespace: demo}
spec: {}
---
kind: App
metadata: {name: partner, namespace: demo}
spec: {}
---
kind: Authorization
metadata: {name: z, namespace: demo}
spec: {apis: [{name: own}], apps: [{name: p}], stage: RELEASE}
---
kind: Authorization
metadata: {name: wide, namespace: demo}
spec: {group: {name: g}, apps: [{name: partner}], stage: TEST}
---
kind: Authorization
metadata: {name: narrow, namespace: demo}
spec: {apis: [{name: a1}], apps: [{name: partner}], stage: TEST}
---
kind: DomainBinding
metadata: {name: d, namespace: demo}
spec: {groupRef: {name: g}, domain: d.example.com}
---
kind: DomainBinding
metadata: {name: broken, namespace: demo}
spec: {groupRef: {name: none}, domain: f.example.com}
"#
    .to_owned();
    for at in 0..8 {
        text.push_str(&format!(
            r##"---
kind: Api
metadata: {{name: a{at}, namespace: demo}}
spec: {{groupRef: {{name: g}}, request: {{method: GET, path: "/a{at}"}}, backend: {{serviceRef: {{name: b}}, path: "/#v#"}}, stages: {{TEST: {{}}, RELEASE: {{}}}}}}
"##
        ));
    }
    documents(&text)
}

struct Cluster {
    documents: Vec<Value>,
    objects: Objects,
    compiler: Compiler,
}

impl Cluster {
    fn new() -> Self {
        let documents = world();
        let objects = gather(&documents);
        let mut settings = settings();
        settings.limits.domains_per_group = 2;
        let mut compiler = Compiler::new(Memory::default(), settings);
        compiler.update(&objects, &Touched::default());
        compiler.update(&objects, &Touched::default());
        Self {
            documents,
            objects,
            compiler,
        }
    }

    /// What is said about the object with one field changed.
    fn write(&self, object: &str, pointer: &str, value: &str) -> Admission {
        let found = self.documents.iter().find(|it| id(it) == object);
        let mut document = found.unwrap_or_else(|| panic!("no {object}")).clone();
        let value: Value = serde_json::from_str(value).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[key] = value;
        self.admit(&document)
    }

    /// What is said about a new object.
    fn create(&self, yaml: &str) -> Admission {
        self.admit(&documents(yaml)[0])
    }

    fn admit(&self, document: &Value) -> Admission {
        let (name, object) = any(document);
        let request = Request::Write {
            name: &name.name,
            object: &object,
        };
        self.compiler.admit(&self.objects, &request)
    }

    fn delete(&self, object: &str) -> Admission {
        let found = self.documents.iter().find(|it| id(it) == object);
        let (id, _) = any(found.unwrap_or_else(|| panic!("no {object}")));
        self.compiler
            .admit(&self.objects, &Request::Delete { id: &id })
    }
}

pub(crate) fn any(document: &Value) -> (ObjectId, AnyObject) {
    fn only<K: Clone, S: Clone>(
        kind: Kind,
        map: std::collections::BTreeMap<K, Object<S>>,
        wrap: fn(Object<S>) -> AnyObject,
    ) -> Option<(Kind, K, AnyObject)> {
        let (name, object) = map.into_iter().next()?;
        Some((kind, name, wrap(object)))
    }
    let objects = gather(std::slice::from_ref(document));
    let found = only(Kind::ApiGroup, objects.groups, AnyObject::ApiGroup)
        .or_else(|| {
            only(
                Kind::BackendService,
                objects.backend_services,
                AnyObject::BackendService,
            )
        })
        .or_else(|| only(Kind::Api, objects.apis, AnyObject::Api))
        .or_else(|| only(Kind::App, objects.apps, AnyObject::App))
        .or_else(|| {
            only(
                Kind::Authorization,
                objects.authorizations,
                AnyObject::Authorization,
            )
        })
        .or_else(|| {
            only(
                Kind::DomainBinding,
                objects.domain_bindings,
                AnyObject::DomainBinding,
            )
        });
    let (kind, name, object) = found.expect("one of the six kinds");
    (ObjectId { kind, name }, object)
}

/// What is said, in lines: refusals first, each with its reason.
fn said(admission: &Admission) -> Vec<String> {
    let refusals = admission.refusals.iter();
    let refusals = refusals.map(|it| format!("refused {} at {}", it.reason, it.field));
    refusals.chain(admission.warnings.iter().cloned()).collect()
}

const EIGHT: &str = "demo/a0, demo/a1, demo/a2, demo/a3, demo/a4 and 3 more";

#[test]
fn one_edit_one_answer() {
    let cluster = Cluster::new();
    let offline = |stage: &str| format!("this takes 8 Apis offline in {stage}: {EIGHT}");
    let own = |text: &str| vec![text.to_owned()];
    let rows: Vec<(&str, &str, &str, Vec<String>)> = vec![
        // Nothing different, or nothing of note.
        ("Api demo/a0", "/metadata/labels", r#"{"x": "y"}"#, vec![]),
        ("Api demo/a0", "/spec/description", r#""x""#, vec![]),
        ("DomainBinding demo/broken", "/metadata/labels", r#"{"x": "y"}"#, vec![]),
        // What is wrong already is not said again.
        ("DomainBinding demo/broken", "/spec/webSocket", "true", vec![]),
        // Never right.
        ("Api demo/a0", "/spec/request/path", r#""wrong""#, own("refused InvalidPath at spec.request.path")),
        ("Api demo/a0", "/spec/revisionHistoryLimit", "0", own("refused OutOfRange at spec.revisionHistoryLimit")),
        ("BackendService demo/b", "/spec/type", r#""Mock""#, vec![
            "refused Immutable at spec.type".to_owned(),
            "refused Contradiction at spec.stages.RELEASE".to_owned(),
            "refused Contradiction at spec.stages.TEST".to_owned(),
        ]),
        ("BackendService demo/kept", "/spec/stages", r#"{"TEST": {"http": {"address": "http://10.0.0.1"}}}"#, own("refused StageInUse at spec.stages.RELEASE")),
        ("ApiGroup demo/g", "/spec/basePath", r#""v1""#, own("refused InvalidPath at spec.basePath")),
        ("App demo/p", "/spec/displayName", r#""x""#, own("refused InvalidValue at spec.displayName")),
        ("Authorization demo/z", "/spec/apps", "[]", own("refused Required at spec.apps")),
        ("DomainBinding demo/d", "/spec/domain", r#""-""#, own("refused InvalidHost at spec.domain")),
        // Right later.
        ("Api demo/a0", "/spec/groupRef", r#"{"name": "none"}"#, vec![
            "spec.groupRef: there is no ApiGroup demo/none in force; release 1 goes on in stage RELEASE; create it, or correct the name".to_owned(),
            "spec.groupRef: there is no ApiGroup demo/none in force; release 1 goes on in stage TEST; create it, or correct the name".to_owned(),
        ]),
        ("Api demo/own", "/spec/backend/serviceRef/name", r#""none""#, own(
            "spec.backend.serviceRef: there is no BackendService demo/none in force; release 1 goes on in stage RELEASE; create it, or correct the name",
        )),
        ("Api demo/own", "/spec/stages", r#"{"RELEASE": {"release": 9}}"#, own("release 9 does not exist; newest is 1: RELEASE stays on release 1")),
        ("Api demo/own", "/spec/stages", r#"{"RELEASE": {}, "PRE": {"release": 2}}"#, own("release 2 does not exist; newest is 1: PRE is offline")),
        ("Api demo/own", "/spec/request/path", r#""/a3""#, own(
            "spec.request.path: GET /a3 of ApiGroup demo/g is served by Api demo/a3 in stage RELEASE already; release 1 goes on in stage RELEASE; use another path or method",
        )),
        ("Authorization demo/z", "/spec/apps", r#"[{"name": "p"}, {"name": "mobile"}]"#, own(
            "App demo/mobile does not exist yet: the authorization takes effect when it does",
        )),
        ("Authorization demo/z", "/spec/apis", r#"[{"name": "own"}, {"name": "later"}]"#, own(
            "Api demo/later does not exist yet: the authorization takes effect when it does",
        )),
        // What it takes from callers, unless something else allows it.
        ("Authorization demo/z", "/spec/apis", r#"[{"name": "a0"}]"#, own("App demo/p may not call 1 Api in RELEASE any more: demo/own")),
        ("Authorization demo/z", "/spec/stage", r#""TEST""#, own("App demo/p may not call 1 Api in RELEASE any more: demo/own")),
        ("Authorization demo/z", "/spec/apps", r#"[{"name": "lonely"}]"#, own("App demo/p may not call 1 Api in RELEASE any more: demo/own")),
        ("Authorization demo/wide", "/spec/group", r#"{"name": "free"}"#, own(
            "App demo/partner may not call 7 Apis in TEST any more: demo/a0, demo/a2, demo/a3, demo/a4, demo/a5 and 2 more",
        )),
        ("Authorization demo/narrow", "/spec/apis", r#"[{"name": "a0"}]"#, vec![]),
        ("App demo/p", "/spec/credentials", r#"[{"name": "k", "type": "AppCode", "secretRef": {"name": "none"}}]"#, own(
            "spec.credentials[0].secretRef: there is no Secret demo/none; create it",
        )),
        ("App demo/p", "/spec/credentials", r#"[{"name": "made", "type": "AppCode"}]"#, vec![]),
        ("App demo/lonely", "/spec/credentials", r#"[{"name": "k", "type": "AppCode", "secretRef": {"name": "k"}}]"#, vec![]),
        // What it does to others.
        ("Api demo/a0", "/spec/stages", r#"{"RELEASE": {}}"#, own("this takes 1 Api offline in TEST: demo/a0")),
        ("BackendService demo/b", "/spec/stages", r#"{"RELEASE": {"http": {"address": "http://10.0.0.2"}}}"#, vec![offline("TEST")]),
        ("BackendService demo/b", "/spec/stages/RELEASE", r#"{"http": {"address": "https://b.example.com"}}"#, own(
            "this moves 8 Apis in RELEASE to https://b.example.com",
        )),
        ("ApiGroup demo/g", "/spec/stageVariables", r#"{"RELEASE": {"v": "1"}}"#, vec![offline("TEST")]),
        ("ApiGroup demo/g", "/spec/basePath", r#""/v1""#, own("this moves 9 Apis from base path / to /v1")),
        ("ApiGroup demo/g", "/spec/instance", r#""partners""#, own(
            "this moves 9 Apis from the gateways of instance `default` to those of `partners`: calls that still arrive at `default` are answered 404",
        )),
        ("ApiGroup demo/free", "/spec/instance", r#""partners""#, vec![]),
        ("ApiGroup demo/free", "/spec/basePath", r#""/v1""#, vec![]),
        ("App demo/p", "/spec/disabled", "true", own(
            "1 Authorization names App demo/p, and every call of the App is refused while it is disabled: demo/z",
        )),
        ("App demo/lonely", "/spec/disabled", "true", vec![]),
        ("DomainBinding demo/d", "/spec/domain", r#""e.example.com""#, own("this takes the domain d.example.com of DomainBinding demo/d offline")),
    ];
    for (object, pointer, value, expected) in rows {
        let admission = cluster.write(object, pointer, value);
        assert_eq!(said(&admission), expected, "{object} {pointer} = {value}");
    }
}

#[test]
fn one_new_object_one_answer() {
    let cluster = Cluster::new();
    let domain = |name: &str, host: &str| {
        format!(
            "kind: DomainBinding\nmetadata: {{name: {name}, namespace: demo}}\nspec: {{groupRef: {{name: g}}, domain: {host}}}"
        )
    };
    let rows = [
        (domain("d1", "e.example.com"), None),
        (domain("d1", "d.example.com"), Some(
            "spec.domain: d.example.com with base path / is bound by DomainBinding demo/d already; bind another domain, or give the group another base path",
        )),
        (domain("d1", "'*'"), Some("refused InvalidHost at spec.domain")),
        ("kind: App\nmetadata: {name: q, namespace: demo}\nspec: {credentials: [{name: k, type: AppCode, secretRef: {name: k}}]}".to_owned(), Some(
            "spec.credentials[0]: App demo/p has this AppCode; use another one",
        )),
        ("kind: ApiGroup\nmetadata: {name: new, namespace: demo}\nspec: {qpsLimit: 0}".to_owned(), Some("refused OutOfRange at spec.qpsLimit")),
        ("kind: BackendService\nmetadata: {name: new, namespace: demo}\nspec: {type: VPC, stages: {TEST: {vpc: {service: {name: none, port: 80}}}}}".to_owned(), Some(
            "spec.stages.TEST.vpc.service.name: there is no Service demo/none; create it",
        )),
        ("kind: Api\nmetadata: {name: new, namespace: demo}\nspec: 3".to_owned(), Some("refused Malformed at spec")),
    ];
    for (yaml, expected) in rows {
        let admission = cluster.create(&yaml);
        let expected: Vec<String> = expected.map(str::to_owned).into_iter().collect();
        assert_eq!(said(&admission), expected, "{yaml}");
    }
}

#[test]
fn a_full_group_is_warned_of() {
    let mut cluster = Cluster::new();
    let mut settings = settings();
    settings.limits.domains_per_group = 1;
    settings.limits.apis_per_group = 9;
    cluster.compiler.set_settings(settings);
    cluster
        .compiler
        .update(&cluster.objects, &Touched::default());
    let domain = cluster.create("kind: DomainBinding\nmetadata: {name: d1, namespace: demo}\nspec: {groupRef: {name: g}, domain: e.example.com}");
    assert_eq!(
        said(&domain),
        [
            "spec.groupRef: ApiGroup demo/g has 1 domain already; use a wildcard, or ask the platform team to raise the limit"
        ]
    );
    let api = cluster.create("kind: Api\nmetadata: {name: new, namespace: demo}\nspec: {groupRef: {name: g}, request: {method: GET, path: /new}, backend: {mock: {}}, stages: {RELEASE: {}}}");
    assert_eq!(
        said(&api),
        [
            "spec.groupRef: ApiGroup demo/g has 9 Apis already; use another group, or ask the platform team to raise the limit"
        ]
    );
}

#[test]
fn one_deletion_one_answer() {
    let cluster = Cluster::new();
    let eight = |stage: &str| format!("this takes 8 Apis offline in {stage}: {EIGHT}");
    let rows: Vec<(&str, Vec<String>)> = vec![
        ("Api demo/a0", vec![
            "this takes 1 Api offline in RELEASE: demo/a0".to_owned(),
            "this takes 1 Api offline in TEST: demo/a0".to_owned(),
        ]),
        ("BackendService demo/b", vec![eight("RELEASE"), eight("TEST")]),
        ("BackendService demo/kept", vec!["refused StageInUse at spec.stages.RELEASE".to_owned()]),
        ("ApiGroup demo/g", vec![
            "this takes 9 Apis offline in RELEASE: demo/a0, demo/a1, demo/a2, demo/a3, demo/a4 and 4 more".to_owned(),
            eight("TEST"),
            "this takes the domain d.example.com of DomainBinding demo/d offline".to_owned(),
        ]),
        ("ApiGroup demo/free", vec![]),
        ("App demo/p", vec!["1 Authorization names App demo/p, and every call of the App is refused from then on: demo/z".to_owned()]),
        ("App demo/lonely", vec![]),
        ("Authorization demo/z", vec!["App demo/p may not call 1 Api in RELEASE any more: demo/own".to_owned()]),
        // What another Authorization allows as well goes on.
        ("Authorization demo/narrow", vec![]),
        ("Authorization demo/wide", vec!["App demo/partner may not call 7 Apis in TEST any more: demo/a0, demo/a2, demo/a3, demo/a4, demo/a5 and 2 more".to_owned()]),
        ("DomainBinding demo/d", vec!["this takes the domain d.example.com of DomainBinding demo/d offline".to_owned()]),
        ("DomainBinding demo/broken", vec![]),
    ];
    for (object, expected) in rows {
        assert_eq!(said(&cluster.delete(object)), expected, "{object}");
    }
}

#[test]
fn an_object_alone_tells_its_mistakes_without_a_cluster() {
    let documents = documents(
        "kind: Api\nmetadata: {name: a, namespace: demo}\nspec: {groupRef: {name: none}, request: {method: GET, path: wrong}, backend: {serviceRef: {name: none}}}",
    );
    let (id, object) = any(&documents[0]);
    let problems = problems_of_spec(&id.name, &object, &settings());
    let fields: Vec<&str> = problems.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(fields, ["spec.request.path"]);
}

#[test]
fn nothing_is_changed_by_asking() {
    let mut cluster = Cluster::new();
    cluster.write("BackendService demo/b", "/spec/stages", "{}");
    cluster.delete("ApiGroup demo/g");
    assert!(
        cluster
            .compiler
            .update(&cluster.objects, &Touched::default())
            .is_empty()
    );
    assert!(
        cluster
            .compiler
            .update(&cluster.objects, &Touched::everything())
            .is_empty()
    );
}
