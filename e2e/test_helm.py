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
import urllib.error
import urllib.request

import pytest
import yaml

import paifang
from paifang import REPO
from test_charts import CHARTS, EVERYTHING, IN_CLUSTER, PATH, exported_metrics, wanted_metrics

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


class Program:
    """The real program beside the cluster, with the arguments that the chart gives it and the permissions of its account."""

    def __init__(self, cluster, account, deployment, folder, *more):
        self.port, self.log = paifang.free_port(), folder / f"{account}.log"
        arguments = cluster.get("deployment", deployment)["spec"]["template"]["spec"]["containers"][0]["args"]
        command = [paifang.binary(), *arguments, f"--namespace={NAMESPACE}", f"--admin=127.0.0.1:{self.port}", *more]
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            env=impersonating(cluster, account, folder / f"{account}.kubeconfig"))

    def check(self, truth, what=""):
        assert self.process.poll() is None, f"it ended\n{self.log.read_text()}"
        assert truth, f"{what}\n{self.log.read_text()}"

    def metrics(self):
        return exported_metrics(f"127.0.0.1:{self.port}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def test_controller_and_gateway_can_do_their_work_with_their_permissions(installed, tmp_path):
    """An Api from nothing to an answered call, edited, and taken away again; nothing of it is forbidden."""
    http = paifang.free_port()
    gateway_arguments = ["--pod=gateway-0", "--pod-ip=127.0.0.1", f"--cache={tmp_path / 'cache'}", "--report=127.0.0.1:0", f"--http=127.0.0.1:{http}",
                         "--https=127.0.0.1:0", "--internal=127.0.0.1:0"]
    installed.upgrade("instanceDefaults.lameDuckSeconds=0,instanceDefaults.drainTimeoutSeconds=1")
    with (Program(installed, "paifang-controller", "paifang-controller", tmp_path, "--identity=test", "--webhook=127.0.0.1:0") as controller,
          Program(installed, "paifang-gateway", "paifang-gateway-default", tmp_path, *gateway_arguments) as gateway):
        installed.run("kubectl", "create", "namespace", "team")
        installed.run("kubectl", "apply", "--namespace", "team", "--filename", REPO / "config/quickstart")

        def names(kind, namespace=NAMESPACE):
            return {o["metadata"]["name"] for o in installed.get(kind, namespace=namespace)["items"]}

        def published():
            status = installed.get("api.paifang.dev", "hello", namespace="team")["status"]
            controller.check({c["type"]: c["status"] for c in status["conditions"]}["Accepted"] == "True", status)
            maps = names("configmaps")
            controller.check(any(name.startswith("paifang-group-") for name in maps) and any(name.startswith("paifang-part-") for name in maps), maps)
            controller.check(names("controllerrevisions", "team"), "no release")
            internal = {"paifang-ca", "paifang-gateway-tls", "paifang-controller-tls", "paifang-webhook-tls", "paifang-apps"}
            controller.check(names("secrets") >= internal, internal - names("secrets"))
            hook = installed.get("validatingwebhookconfiguration", "paifang")["webhooks"][0]
            controller.check(hook["clientConfig"].get("caBundle"), hook)

        def answers(expected):
            request = urllib.request.Request(f"http://127.0.0.1:{http}/hello", headers={"Host": "demo.localtest"})
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    said = answer.read().decode().strip()
            except urllib.error.HTTPError as error:
                said = error.code
            except OSError as error:
                said = error
            gateway.check(said == expected, f"{said!r}")

        eventually(published)
        eventually(lambda: answers('{"hello":"world"}'))
        patch = json.dumps({"spec": {"backend": {"mock": {"body": "changed"}}}})
        installed.run("kubectl", "patch", "api.paifang.dev", "hello", "--namespace", "team", "--type=merge", "--patch", patch)
        eventually(lambda: answers("changed"))
        installed.run("kubectl", "delete", "apis.paifang.dev,apigroups.paifang.dev", "--all", "--namespace", "team")
        eventually(lambda: answers(404))

        def collected():
            left = [name for name in names("configmaps") if name.startswith("paifang-group-")]
            controller.check(not left, left)

        eventually(collected)
        wanted = {name for name in wanted_metrics() if name.startswith("paifang_controller_")}
        assert len(wanted) >= 8 and wanted <= controller.metrics(), f"the controller has no {sorted(wanted - controller.metrics())}"
        assert IN_CLUSTER <= wanted_metrics()
        assert IN_CLUSTER <= gateway.metrics(), f"the gateway has no {sorted(IN_CLUSTER - gateway.metrics())}"
    for program in (controller, gateway):
        assert "forbidden" not in program.log.read_text().lower(), program.log.read_text()


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
