"""The charts on a real control plane: a Kubernetes API server accepts them as they are, and installing, upgrading, rolling back and uninstalling does to
objects what docs/install.md says. No node: pods are made and stay pending. What pods do is shown by the tests of crates/testkit."""

import base64
import json
import os
import pathlib
import re
import selectors
import shutil
import subprocess
import time

import pytest
import yaml

import paifang
from paifang import REPO
from test_charts import CHARTS, EVERYTHING, PATH, exported_metrics, wanted_metrics

NAMESPACE = "paifang-system"
START_SECONDS = 120
SCALED = "instanceDefaults.autoscaling.enabled=true,instanceDefaults.autoscaling.min=4"


class Cluster:
    def __init__(self, kubeconfig):
        self.environment = {**os.environ, "PATH": PATH, "KUBECONFIG": kubeconfig}

    def run(self, *command, ok=True, **options):
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, env=self.environment, **options)
        if ok:
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            return done.stdout
        assert done.returncode != 0, f"{command} should have failed\n{done.stdout}"
        return done.stderr

    def helm(self, action, *arguments, **options):
        return self.run("helm", action, *arguments, "--namespace", NAMESPACE, **options)

    def upgrade(self, *values, **options):
        values = [part for value in values for part in ("--set", value)]
        return self.helm("upgrade", "--install", "paifang", CHARTS / "paifang", "--reset-values", *values, **options)

    def get(self, *what, namespace=NAMESPACE):
        return json.loads(self.run("kubectl", "get", *what, "--namespace", namespace, "--show-managed-fields", "--output", "json"))

    def can(self, account, *what):
        """Whether the service account may, as the API server sees it."""
        command = ["kubectl", "auth", "can-i", *what, f"--as=system:serviceaccount:{NAMESPACE}:{account}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.environment)
        return done.stdout.strip() == "yes"


@pytest.fixture(scope="module")
def cluster():
    program = paifang.binary().parent / "paifang-cluster-up"
    assert program.exists(), f"{program} is missing: run `cargo build -p paifang-testkit`"
    process = subprocess.Popen([program, "control-plane"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
    try:
        cluster = Cluster(kubeconfig(process))
        # The strictest that a namespace can ask for: pods that are not restricted are refused.
        cluster.run("kubectl", "create", "namespace", NAMESPACE)
        cluster.run("kubectl", "label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        # The test kit has applied the definitions with kubectl; here Helm is to be their only owner.
        cluster.run("kubectl", "delete", "--filename", REPO / "crds", "--wait")
        cluster.helm("install", "paifang-crds", CHARTS / "paifang-crds")
        yield cluster
    finally:
        process.terminate()
        process.wait(timeout=60)


def kubeconfig(process):
    deadline, said = time.monotonic() + START_SECONDS, ""
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline and process.poll() is None:
            if ready.select(timeout=1):
                line = process.stdout.readline()
                said += line
                if found := re.match(r"export KUBECONFIG=(\S+)", line):
                    return found.group(1)
    raise AssertionError(f"no control plane:\n{said}{process.stdout.read() if process.poll() is not None else ''}")


@pytest.fixture
def installed(cluster):
    cluster.upgrade()
    yield cluster
    cluster.helm("uninstall", "paifang", "--wait")


def eventually(check, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


# === what the API server says ===


@pytest.mark.parametrize("options", [[], EVERYTHING], ids=["defaults", "everything"])
def test_every_object_is_accepted_to_the_letter(cluster, options, tmp_path):
    text = cluster.helm("template", "paifang", CHARTS / "paifang", *options)
    # The ServiceMonitor is of another operator, whose definition is not here.
    objects = [o for o in yaml.safe_load_all(text) if o and o["kind"] != "ServiceMonitor"]
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    said = cluster.run("kubectl", "apply", "--server-side", "--dry-run=server", "--validate=strict", "--namespace", NAMESPACE, "--filename", file)
    assert len(said.splitlines()) == len(objects)

    objects[-1]["unheardOf"] = True
    file.write_text(yaml.safe_dump_all(objects))
    said = cluster.run("kubectl", "apply", "--server-side", "--dry-run=server", "--validate=strict", "--namespace", NAMESPACE, "--filename", file, ok=False)
    assert "unheardOf" in said


def test_restricted_pods_are_made(installed):
    def pods():
        found = [pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in installed.get("pods")["items"]]
        assert sorted(found) == ["controller"] * 2 + ["gateway"] * 2

    eventually(pods)


def test_accounts_may_do_what_they_must_and_nothing_more(installed):
    own = ("--namespace", NAMESPACE)
    everywhere = "--all-namespaces"
    may = {
        "paifang-gateway": [("list", "secrets", *own), ("watch", "configmaps", *own), ("watch", "endpointslices.discovery.k8s.io", everywhere)],
        "paifang-controller": [("watch", "apis.paifang.dev", everywhere), ("patch", "apis.paifang.dev", "--subresource=status", everywhere),
                               ("watch", "secrets", everywhere), ("create", "controllerrevisions.apps", everywhere), ("update", "leases.coordination.k8s.io", *own),
                               ("patch", "validatingwebhookconfigurations/paifang")],
    }
    may_not = {
        "paifang-gateway": [("list", "secrets", everywhere), ("list", "secrets", "--namespace", "default"), ("create", "configmaps", *own), ("patch", "pods", *own),
                            ("get", "apis.paifang.dev", everywhere), ("create", "pods/exec", *own)],
        "paifang-controller": [("update", "apis.paifang.dev", everywhere), ("delete", "apis.paifang.dev", everywhere), ("update", "secrets", "--namespace", "default"),
                               ("delete", "secrets", "--namespace", "default"), ("create", "configmaps", "--namespace", "default"), ("get", "pods", everywhere),
                               ("create", "pods", *own), ("patch", "validatingwebhookconfigurations/another"), ("create", "clusterroles")],
    }
    for account, list_ in may.items():
        for what in list_:
            assert installed.can(account, *what), f"{account} must be able to {what}"
    for account, list_ in may_not.items():
        for what in list_:
            assert not installed.can(account, *what), f"{account} must not be able to {what}"


def impersonating(cluster, account, file):
    """A kubeconfig with which a program is exactly as mighty as the service account."""
    config = yaml.safe_load(pathlib.Path(cluster.environment["KUBECONFIG"]).read_text())
    config["users"][0]["user"] |= {"as": f"system:serviceaccount:{NAMESPACE}:{account}",
                                   "as-groups": ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]}
    file.write_text(yaml.safe_dump(config))
    return {**os.environ, "KUBECONFIG": str(file)}


def test_the_controller_can_do_its_work_with_its_permissions(installed, tmp_path):
    """The real program, with the arguments that the chart gives it and the permissions of its account, until Apis are published."""
    port = paifang.free_port()
    arguments = installed.get("deployment", "paifang-controller")["spec"]["template"]["spec"]["containers"][0]["args"]
    command = [paifang.binary(), *arguments, "--namespace", NAMESPACE, "--identity", "test", "--webhook=127.0.0.1:0", f"--admin=127.0.0.1:{port}"]
    log = tmp_path / "controller.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   env=impersonating(installed, "paifang-controller", tmp_path / "kubeconfig"))
    try:
        installed.run("kubectl", "create", "namespace", "team")
        installed.run("kubectl", "apply", "--namespace", "team", "--filename", REPO / "config/quickstart")

        def published():
            assert process.poll() is None, log.read_text()
            conditions = installed.get("api.paifang.dev", "hello", namespace="team")["status"]["conditions"]
            assert {c["type"]: c["status"] for c in conditions}["Accepted"] == "True", log.read_text()
            names = [o["metadata"]["name"] for o in installed.get("configmaps")["items"]]
            assert [name for name in names if name.startswith("paifang-group-")], log.read_text()
            assert [name for name in names if name.startswith("paifang-part-")], log.read_text()
            assert installed.get("controllerrevisions", namespace="team")["items"], log.read_text()
            secrets = {o["metadata"]["name"] for o in installed.get("secrets")["items"]}
            assert secrets >= {"paifang-ca", "paifang-gateway-tls", "paifang-controller-tls", "paifang-webhook-tls", "paifang-apps"}, log.read_text()
            hook = installed.get("validatingwebhookconfiguration", "paifang")["webhooks"][0]
            assert hook["clientConfig"].get("caBundle"), log.read_text()

        eventually(published)
        # An edit, and the end of all of it: updates and deletions are permitted too.
        patch = json.dumps({"spec": {"backend": {"mock": {"body": "changed"}}}})
        installed.run("kubectl", "patch", "api.paifang.dev", "hello", "--namespace", "team", "--type=merge", "--patch", patch)

        def edited():
            assert installed.get("api.paifang.dev", "hello", namespace="team")["status"]["latestRelease"] == 2, log.read_text()

        eventually(edited)
        installed.run("kubectl", "delete", "apis.paifang.dev,apigroups.paifang.dev", "--all", "--namespace", "team")

        def collected():
            names = [o["metadata"]["name"] for o in installed.get("configmaps")["items"]]
            assert not [name for name in names if name.startswith("paifang-group-")], log.read_text()

        eventually(collected)
        wanted = {name for name in wanted_metrics() if name.startswith("paifang_controller_")}
        there = exported_metrics(f"127.0.0.1:{port}")
        assert len(wanted) >= 8 and wanted <= there, f"the controller has no {sorted(wanted - there)}"
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert "forbidden" not in log.read_text().lower()


# === upgrades ===


def test_an_upgrade_and_a_rollback_leave_the_controllers_field_alone(installed):
    bundle = base64.b64encode((pathlib.Path(__file__).parent / ".." / "config/07-domain-with-https/ca.crt").read_bytes()).decode()
    patch = {"webhooks": [{"name": "validate.paifang.dev", "clientConfig": {"caBundle": bundle}}]}
    installed.run("kubectl", "patch", "validatingwebhookconfiguration", "paifang", "--type=strategic", "--field-manager=paifang-controller", "--patch", json.dumps(patch))

    def hook():
        found = installed.get("validatingwebhookconfiguration", "paifang")["webhooks"][0]
        return found["timeoutSeconds"], found["clientConfig"].get("caBundle")

    installed.upgrade("controller.webhook.timeoutSeconds=7")
    assert hook() == (7, bundle)
    installed.helm("rollback", "paifang")
    assert hook() == (2, bundle)


def test_an_upgrade_that_changes_no_pod_restarts_none(installed):
    before = {d["metadata"]["name"]: d["metadata"]["generation"] for d in installed.get("deployments")["items"]}
    installed.upgrade("serviceMonitor.enabled=false,grafana.dashboard.enabled=true,instanceDefaults.service.public.type=ClusterIP")
    assert {d["metadata"]["name"]: d["metadata"]["generation"] for d in installed.get("deployments")["items"]} == before


def test_a_removed_instance_goes_and_the_others_stay(installed):
    installed.upgrade("instances[0].name=default", "instances[1].name=partners")
    before = installed.get("deployment", "paifang-gateway-default")["metadata"]
    assert {s["metadata"]["name"] for s in installed.get("services")["items"]} >= {"paifang-partners", "paifang-partners-internal"}
    installed.upgrade()
    names = {s["metadata"]["name"] for s in installed.get("services", "--selector=app.kubernetes.io/name=paifang")["items"]}
    assert names == {"paifang-default", "paifang-default-internal", "paifang-webhook"}
    after = installed.get("deployment", "paifang-gateway-default")["metadata"]
    assert (after["uid"], after["generation"]) == (before["uid"], before["generation"])


def test_an_autoscaler_takes_over_without_a_dip(installed):
    def owners():
        return [m["manager"] for m in installed.get("deployment", "paifang-gateway-default")["metadata"]["managedFields"] if "f:replicas" in m["fieldsV1"].get("f:spec", {})]

    def replicas():
        return installed.get("deployment", "paifang-gateway-default")["spec"]["replicas"]

    installed.upgrade("instanceDefaults.replicas=3")
    # Without the chart's care the field would go with its owner, and one pod be left.
    installed.upgrade(SCALED)
    assert replicas() >= 3

    def taken_over():
        assert (replicas(), owners()) == (4, ["kube-controller-manager"])

    eventually(taken_over)
    installed.upgrade(SCALED, "controller.logLevel=debug")
    taken_over()
    # Back again: only when one says so, as docs/install.md tells.
    said = installed.upgrade("instanceDefaults.replicas=2", ok=False)
    assert "conflict" in said and ".spec.replicas" in said
    assert replicas() == 4
    installed.run("helm", "upgrade", "paifang", CHARTS / "paifang", "--namespace", NAMESPACE, "--reset-values", "--set", "instanceDefaults.replicas=2", "--force-conflicts")
    assert (replicas(), owners()) == (2, ["helm"])


def test_an_autoscaler_takes_over_from_a_chart_that_was_rendered_elsewhere(cluster, tmp_path):
    """As Argo CD applies it, and with what docs/install.md says to do first."""
    handover = re.search(r"^```sh\n(kubectl apply --server-side --field-manager=handover.*?)^```", (REPO / "docs/install.md").read_text(), re.M | re.S).group(1)
    file = tmp_path / "all.yaml"

    def sync(values):
        file.write_text(cluster.helm("template", "paifang", CHARTS / "paifang", "--set", values))
        cluster.run("kubectl", "apply", "--server-side", "--field-manager=argocd", "--namespace", NAMESPACE, "--filename", file)
        return cluster.get("deployment", "paifang-gateway-default")["spec"]["replicas"]

    try:
        assert sync("instanceDefaults.replicas=3") == 3
        cluster.run("bash", "-euc", handover)
        assert sync(SCALED) >= 3

        def scaled():
            assert cluster.get("deployment", "paifang-gateway-default")["spec"]["replicas"] == 4

        eventually(scaled)
        assert sync(SCALED) == 4
    finally:
        cluster.run("kubectl", "delete", "--filename", file, "--namespace", NAMESPACE, "--wait")


# === definitions ===


def test_objects_outlive_both_releases(cluster):
    cluster.upgrade()
    group = {"apiVersion": "paifang.dev/v1alpha1", "kind": "ApiGroup", "metadata": {"name": "kept", "namespace": "default"}, "spec": {}}
    cluster.run("kubectl", "apply", "--server-side", "--filename", "-", input=json.dumps(group))
    uid = cluster.get("apigroup", "kept", namespace="default")["metadata"]["uid"]
    cluster.helm("uninstall", "paifang", "--wait")
    said = cluster.helm("uninstall", "paifang-crds", "--wait")
    assert said.count("[CustomResourceDefinition]") == 6
    cluster.helm("install", "paifang-crds", CHARTS / "paifang-crds")
    cluster.helm("upgrade", "paifang-crds", CHARTS / "paifang-crds")
    assert cluster.get("apigroup", "kept", namespace="default")["metadata"]["uid"] == uid


def test_an_upgrade_brings_a_definition_up_to_date(cluster, tmp_path):
    older = tmp_path / "paifang-crds"
    shutil.copytree(CHARTS / "paifang-crds", older)
    file = older / "templates/paifang.dev.apps.yaml"
    text = file.read_text()
    assert "    - pfapp\n" in text
    file.write_text(text.replace("    - pfapp\n", "    - older\n"))
    cluster.helm("upgrade", "paifang-crds", older)
    names = cluster.get("customresourcedefinition", "apps.paifang.dev")["spec"]["names"]
    assert names["shortNames"] == ["older"]
    cluster.helm("upgrade", "paifang-crds", CHARTS / "paifang-crds")
    names = cluster.get("customresourcedefinition", "apps.paifang.dev")["spec"]["names"]
    assert names["shortNames"] == ["pfapp"]


# === Argo CD ===


def test_the_health_checks_merge_as_the_page_says(cluster, tmp_path):
    page = (REPO / "docs/argocd.md").read_text()
    commands = re.search(r"^```sh\n(helm upgrade paifang .*?)^```", page, re.M | re.S).group(1)
    cluster.upgrade()
    cluster.run("kubectl", "create", "namespace", "argocd")
    cluster.run("kubectl", "create", "configmap", "argocd-cm", "--namespace", "argocd", "--from-literal=timeout.reconciliation=10s")
    os.symlink(CHARTS, tmp_path / "charts")
    cluster.run("bash", "-euc", commands, cwd=tmp_path)
    data = cluster.get("configmap", "argocd-cm", namespace="argocd")["data"]
    assert data.pop("timeout.reconciliation") == "10s"
    script = (CHARTS / "paifang/argocd/health.lua").read_text()
    assert len(data) == 6 and all(value == script for value in data.values())
    cluster.helm("uninstall", "paifang", "--wait")
