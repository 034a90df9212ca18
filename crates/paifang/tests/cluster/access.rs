//! Who may call, and who may do what in the cluster: credentials, revocation, other people's namespaces, permissions.

use std::time::{Duration, Instant};

use paifang_testkit::eventually;
use serde_json::{Value, json};

use crate::site::{NAMESPACE, PATIENCE, Site, all, find, group, mock};

fn guarded(host: &str) -> String {
    let api =
        mock("a", "g", "/a", "in").replace("{type: Anonymous}", "{type: App, appCode: Header}");
    all(&[group("g", host), api])
}

fn app(credentials: &str) -> String {
    format!(
        "apiVersion: paifang.dev/v1alpha1\nkind: App\nmetadata: {{name: app}}\nspec:\n  credentials:\n{credentials}"
    )
}

const AUTHORIZATION: &str = "apiVersion: paifang.dev/v1alpha1\nkind: Authorization\nmetadata: {name: auth}\nspec: {apis: [{name: a}], apps: [{name: app}], stage: RELEASE}\n";

fn secret(name: &str, code: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{appCode: {code}}}\n"
    )
}

/// The answer to an AppCode that nobody has (Ref §3).
const UNKNOWN: u16 = 400;

/// Waits until every gateway answers a call with this AppCode so.
fn all_say(site: &Site, host: &str, code: &str, status: u16) -> Duration {
    let began = Instant::now();
    for gateway in &site.gateways {
        eventually(
            &format!("{} answers {status}", gateway.pod),
            PATIENCE,
            || {
                let answer =
                    gateway.get(host, "/a", &[("Authorization", &format!("APPCODE {code}"))])?;
                anyhow::ensure!(
                    answer.status == status,
                    "{} {:?} {}",
                    answer.status,
                    answer.header("x-ca-error-message"),
                    answer.text()
                );
                Ok(())
            },
        );
    }
    began.elapsed()
}

#[test]
fn a_credential_without_a_secret_gets_one_that_works_and_goes_with_its_app() {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    let made = app("  - {name: made, type: AppCode}\n");
    site.plane()
        .apply(
            &namespace,
            &all(&[guarded(&host), made, AUTHORIZATION.to_owned()]),
        )
        .unwrap();
    let object = site.until(&namespace, "apps", "app", "Ready", "True");
    assert_eq!(object["status"]["credentials"][0]["state"], "Active");
    let path = format!("/api/v1/namespaces/{namespace}/secrets/app-made");
    let made = site.plane().ask("GET", &path, &Value::Null).unwrap();
    assert_eq!(made["metadata"]["ownerReferences"][0]["kind"], "App");
    let code = site
        .plane()
        .kubectl(&[
            "get",
            "secret",
            "app-made",
            "-n",
            &namespace,
            "-o",
            "go-template={{.data.appCode | base64decode}}",
        ])
        .unwrap();
    all_say(site, &host, &code, 200);
    site.delete(&namespace, "apps", "app");
    all_say(site, &host, &code, UNKNOWN);
    eventually("its Secret is collected", PATIENCE, || {
        match site.plane().ask("GET", &path, &Value::Null) {
            Ok(_) => anyhow::bail!("it is there"),
            Err(_) => Ok(()),
        }
    });
}

#[test]
fn both_codes_work_while_one_is_rotated_and_the_old_one_ends_with_its_secret() {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    let (old, new) = (
        format!("old-code-{namespace}"),
        format!("new-code-{namespace}"),
    );
    let one = app("  - {name: one, type: AppCode, secretRef: {name: one}}\n");
    site.plane()
        .apply(
            &namespace,
            &all(&[
                secret("one", &old),
                guarded(&host),
                one,
                AUTHORIZATION.to_owned(),
            ]),
        )
        .unwrap();
    all_say(site, &host, &old, 200);
    let both = app(
        "  - {name: one, type: AppCode, secretRef: {name: one}}\n  - {name: two, type: AppCode, secretRef: {name: two}}\n",
    );
    site.plane()
        .apply(&namespace, &all(&[secret("two", &new), both]))
        .unwrap();
    all_say(site, &host, &new, 200);
    all_say(site, &host, &old, 200);
    site.plane()
        .kubectl(&["delete", "secret", "one", "-n", &namespace])
        .unwrap();
    all_say(site, &host, &old, UNKNOWN);
    all_say(site, &host, &new, 200);
    let object = site.until(&namespace, "apps", "app", "ResolvedRefs", "False");
    assert_eq!(
        find(&object, "ResolvedRefs")["reason"],
        "SecretNotFound",
        "{object}"
    );
}

#[test]
fn what_is_revoked_is_refused_by_every_gateway_within_a_second() {
    let site = Site::shared();
    let namespace = site.plane().namespace().unwrap();
    let host = format!("{namespace}.example.com");
    let code = format!("some-code-{namespace}");
    let objects = all(&[
        secret("one", &code),
        guarded(&host),
        app("  - {name: one, type: AppCode, secretRef: {name: one}}\n"),
        AUTHORIZATION.to_owned(),
    ]);
    // The machine is shared: the best of three is what the software does.
    let mut best = [PATIENCE; 3];
    for _ in 0..3 {
        for (at, revoke) in ["authorizations/auth", "apps/app", "credential"]
            .into_iter()
            .enumerate()
        {
            site.plane().apply(&namespace, &objects).unwrap();
            all_say(site, &host, &code, 200);
            let refused = match revoke {
                "authorizations/auth" => {
                    site.delete(&namespace, "authorizations", "auth");
                    403
                }
                "apps/app" => {
                    site.delete(&namespace, "apps", "app");
                    UNKNOWN
                }
                _ => {
                    site.patch(
                        &namespace,
                        "apps",
                        "app",
                        json!({"spec": {"credentials": [{"name": "other", "type": "KeyPair"}]}}),
                    );
                    UNKNOWN
                }
            };
            best[at] = best[at].min(all_say(site, &host, &code, refused));
        }
    }
    assert!(
        best.iter().all(|took| *took < Duration::from_secs(1)),
        "{best:?}"
    );
}

#[test]
fn another_namespace_gets_nothing_of_ours() {
    let site = Site::shared();
    let (ours, theirs) = (
        site.plane().namespace().unwrap(),
        site.plane().namespace().unwrap(),
    );
    let host = format!("{ours}.example.com");
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: private}\nspec: {ports: [{port: 80}]}\n";
    site.plane()
        .apply(
            &ours,
            &all(&[
                group("g", &host),
                mock("a", "g", "/a", "ours"),
                service.to_owned(),
            ]),
        )
        .unwrap();
    site.until(&ours, "apis", "a", "Ready", "True");

    // Its own group claims our domain; an Api joins our group; a backend names our Service; a domain names a Secret that is ours.
    let join = mock("joins", "g", "/stolen", "theirs").replace(
        "groupRef: {name: g}",
        &format!("groupRef: {{name: g, namespace: {ours}}}"),
    );
    let vpc = format!(
        "apiVersion: paifang.dev/v1alpha1\nkind: BackendService\nmetadata: {{name: reaches}}\nspec: {{type: VPC, stages: {{RELEASE: {{vpc: {{service: {{name: private, namespace: {ours}, port: 80}}, scheme: HTTP}}}}}}}}\n"
    );
    site.plane()
        .apply(
            &theirs,
            &all(&[group("g", &host), mock("a", "g", "/a", "theirs"), join, vpc]),
        )
        .unwrap();
    let domain = site.until(&theirs, "domainbindings", "g", "Conflicted", "True");
    assert!(
        find(&domain, "Conflicted")["message"]
            .as_str()
            .unwrap()
            .contains(&ours),
        "{domain}"
    );
    let joins = site.until(&theirs, "apis", "joins", "ResolvedRefs", "False");
    assert_eq!(
        find(&joins, "ResolvedRefs")["reason"],
        "NamespaceNotAllowed"
    );
    let reaches = site.until(
        &theirs,
        "backendservices",
        "reaches",
        "ResolvedRefs",
        "False",
    );
    assert_eq!(
        find(&reaches, "ResolvedRefs")["reason"],
        "ReferenceNotGranted"
    );
    site.all_answer(&host, "/a", 200, "ours");
    site.all_answer(&host, "/stolen", 404, "");
    site.until(&ours, "apis", "a", "Ready", "True");
    site.until(&ours, "domainbindings", "g", "Ready", "True");
}

#[test]
fn a_gateway_reads_what_it_needs_and_writes_nothing() {
    let site = Site::shared();
    let kubeconfig = site
        .plane()
        .kubeconfig_for(NAMESPACE, "paifang-gateway")
        .unwrap();
    let gateway = site.plane().admin().with(&kubeconfig);
    let can = |verb: &str, what: &str, namespace: &str| {
        let asked = gateway.run(&["auth", "can-i", verb, what, "-n", namespace]);
        asked.is_ok_and(|answer| answer.trim() == "yes")
    };
    assert!(can("list", "secrets", NAMESPACE) && can("watch", "configmaps", NAMESPACE));
    assert!(can("watch", "endpointslices", "default"));
    for verb in ["create", "update", "patch", "delete"] {
        for what in [
            "secrets",
            "configmaps",
            "endpointslices",
            "pods",
            "apis.paifang.dev",
            "leases",
            "events",
        ] {
            assert!(!can(verb, what, NAMESPACE), "{verb} {what}");
        }
    }
    for what in [
        "secrets",
        "configmaps",
        "services",
        "apis.paifang.dev",
        "nodes",
    ] {
        assert!(!can("list", what, "default"), "list {what}");
    }
}
