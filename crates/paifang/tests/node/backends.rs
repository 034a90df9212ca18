//! Backends that are pods: requests go straight to those that are ready, and none is lost while they come and go.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Result, ensure};
use paifang_testkit::eventually;

use crate::cluster::{PATIENCE, Scene};

/// A group with a host name of its own, an Api that the gateway answers itself, and two whose backends are two echo pods, behind a Service and behind a headless one.
pub(crate) const ECHO: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
      - name: echo
        image: paifang.test/echo:1
        ports: [{name: http, containerPort: 8080}]
        env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: echo-headless}
spec:
  clusterIP: None
  selector: {app: echo}
  ports: [{name: http, port: 8080, targetPort: http}]
---
apiVersion: paifang.dev/v1alpha1
kind: ApiGroup
metadata: {name: demo}
spec: {qpsLimit: 100000}
---
apiVersion: paifang.dev/v1alpha1
kind: DomainBinding
metadata: {name: demo}
spec: {groupRef: {name: demo}, domain: HOST, network: Internet}
---
apiVersion: paifang.dev/v1alpha1
kind: BackendService
metadata: {name: echo}
spec:
  type: VPC
  stages: {RELEASE: {vpc: {service: {name: echo, port: http}, scheme: HTTP}}}
---
apiVersion: paifang.dev/v1alpha1
kind: Api
metadata: {name: echo}
spec:
  groupRef: {name: demo}
  auth: {type: Anonymous}
  request: {method: GET, path: /echo, mode: Passthrough}
  backend: {serviceRef: {name: echo}, path: /}
  stages: {RELEASE: {}}
---
apiVersion: paifang.dev/v1alpha1
kind: Api
metadata: {name: headless}
spec:
  groupRef: {name: demo}
  auth: {type: Anonymous}
  request: {method: GET, path: /headless, mode: Passthrough}
  backend: {vpc: {service: {name: echo-headless, port: 8080}, scheme: HTTP}, path: /}
  stages: {RELEASE: {}}
---
apiVersion: paifang.dev/v1alpha1
kind: Api
metadata: {name: hello}
spec:
  groupRef: {name: demo}
  auth: {type: Anonymous}
  request: {method: GET, path: /hello}
  backend: {mock: {body: hello}}
  stages: {RELEASE: {}}
"#;

/// Applies it and waits until it serves.
pub(crate) fn echo(scene: &Scene) {
    scene.apply(ECHO);
    scene.available("echo");
    scene.ready(&[
        "apigroup/demo",
        "domainbinding/demo",
        "backendservice/echo",
        "api/echo",
        "api/headless",
        "api/hello",
    ]);
    both_pods_answer(scene, "/echo");
}

/// The gateways learn of a backend's pods on their own way, beside the configuration.
fn both_pods_answer(scene: &Scene, path: &str) {
    eventually("both pods answer", PATIENCE, || {
        let pods = (0..20)
            .map(|_| pod_of(scene, path))
            .collect::<Result<BTreeSet<_>>>()?;
        ensure!(pods.len() == 2, "{pods:?}");
        Ok(())
    });
}

fn pod_of(scene: &Scene, path: &str) -> Result<String> {
    let answer = scene.call(path)?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok(answer.header("x-pod").unwrap_or_default().to_owned())
}

#[test]
fn backends_roll_and_shrink_under_load_without_a_failed_request() {
    let scene = Scene::beside_others();
    echo(&scene);
    both_pods_answer(&scene, "/headless");
    let service = scene.get("backendservice/echo").unwrap();
    assert_eq!(
        service["status"]["stages"]["RELEASE"]["apis"], 1,
        "{service}"
    );

    let running = ["/echo?delay=5", "/headless?delay=5"].map(|path| scene.load(path).start());
    scene
        .kubectl()
        .run(&[
            "rollout",
            "restart",
            "-n",
            &scene.namespace,
            "deployment/echo",
        ])
        .unwrap();
    scene.available("echo");
    // The old pods accept for three seconds after they were told to end, and have requests until then.
    thread::sleep(Duration::from_secs(4));
    for running in running {
        let outcome = running.stop();
        eprintln!("rolling update of a backend: {outcome}");
        outcome.must_be_flawless(200);
        assert_eq!(outcome.pods.len(), 4, "two old and two new pods: {outcome}");
    }

    let running = scene.load("/echo?delay=5").start();
    scene
        .kubectl()
        .run(&[
            "scale",
            "-n",
            &scene.namespace,
            "deployment/echo",
            "--replicas=1",
        ])
        .unwrap();
    eventually("one pod is left", PATIENCE, || {
        let pods = scene.node.pods(&scene.namespace, "app=echo")?;
        ensure!(pods.len() == 1, "{} pods", pods.len());
        Ok(())
    });
    let outcome = running.stop();
    eprintln!("a backend scaled to one: {outcome}");
    outcome.must_be_flawless(100);
    for path in ["/echo", "/headless"] {
        let pods: Result<BTreeSet<_>> = (0..10).map(|_| pod_of(&scene, path)).collect();
        assert_eq!(pods.unwrap().len(), 1);
    }
}
