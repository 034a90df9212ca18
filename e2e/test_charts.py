"""The charts, as far as that can be seen without a cluster: they lint, their own tests pass, and the pages and files beside them (permissions,
health checks, dashboard, notes) say what is true. test_helm.py installs them."""

import json
import os
import re
import shutil
import subprocess
import urllib.request

import pytest
import yaml

import paifang
from paifang import REPO

CHARTS = REPO / "charts"
KINDS = ["Api", "ApiGroup", "App", "Authorization", "BackendService", "DomainBinding"]
# Every template renders something.
EVERYTHING = ["--set", "serviceMonitor.enabled=true,grafana.dashboard.enabled=true,argocd.healthChecks=true,instanceDefaults.autoscaling.enabled=true",
              "--set", "instances[0].name=default,instances[1].name=partners"]
PATH = f"{REPO / '.cache/bin'}:{os.environ['PATH']}"


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, stdin=options.pop("stdin", subprocess.DEVNULL),
                          env={**os.environ, "PATH": PATH}, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def render(*options, chart="paifang"):
    text = run("helm", "template", "paifang", CHARTS / chart, "--namespace", "paifang-system", *options)
    return [document for document in yaml.safe_load_all(text) if document]


def find(objects, kind, name):
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


@pytest.mark.parametrize("chart", ["paifang-crds", "paifang"])
def test_a_chart_lints(chart):
    run("helm", "lint", "--strict", CHARTS / chart)


def test_the_charts_own_tests_pass():
    run("helm-unittest", "--strict", CHARTS / "paifang-crds", CHARTS / "paifang")


# === what is rendered ===


def test_the_same_values_render_the_same_bytes():
    command = ["helm", "template", "paifang", CHARTS / "paifang", *EVERYTHING]
    assert run(*command) == run(*command)


def test_no_name_is_used_twice():
    names = [(o["kind"], o["metadata"]["name"]) for o in render(*EVERYTHING)]
    assert len(names) == len(set(names))


def test_every_value_is_described():
    """What values.yaml shows is in the schema, and every entry of the schema says what it is."""
    schema = json.loads((CHARTS / "paifang/values.schema.json").read_text())

    def resolve(entry):
        while "$ref" in entry:
            entry = schema["$defs"][entry["$ref"].removeprefix("#/$defs/")]
        return resolve(entry["allOf"][0]) if "allOf" in entry else entry

    def walk(path, value, entry):
        entry = resolve(entry)
        assert entry.get("description"), f"{path} has no description"
        if isinstance(value, dict) and "properties" in entry:
            for name, inner in value.items():
                assert name in entry["properties"], f"{path}.{name} is not in the schema"
                walk(f"{path}.{name}", inner, entry["properties"][name])

    walk("values", yaml.safe_load((CHARTS / "paifang/values.yaml").read_text()), schema)


# === permissions ===


def documented():
    """(kind, name) of each role in docs/permissions.md, with its rules as a set of (group, resource, only, verb)."""
    roles, role = {}, None
    for line in (REPO / "docs/permissions.md").read_text().splitlines():
        if heading := re.match(r"### (Role|ClusterRole) `([^`]+)`", line):
            role = roles.setdefault(heading.groups(), set())
        elif line.startswith("#"):
            role = None
        elif role is not None and line.startswith("| ") and not line.startswith(("| API group", "| ---")):
            group, resources, verbs, why = [cell.strip() for cell in line.strip("|").split("|")]
            only = re.search(r"\(only `([^`]+)`\)", resources)
            resources = re.sub(r"\(.*\)", "", resources)
            assert why, f"no reason: {line}"
            for resource in resources.split(","):
                for verb in verbs.split(","):
                    role.add(("" if group == "core" else group, resource.strip(), only and only.group(1), verb.strip()))
    return roles


def rendered_roles():
    roles = {}
    for role in render(*EVERYTHING):
        if role["kind"] in ("Role", "ClusterRole"):
            rules = roles.setdefault((role["kind"], role["metadata"]["name"]), set())
            for rule in role["rules"]:
                assert "nonResourceURLs" not in rule
                rules |= {(group, resource, only, verb) for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
                          for only in rule.get("resourceNames", [None])}
    return roles


def test_the_page_of_permissions_is_true():
    assert documented() == rendered_roles()


def test_permissions_are_bound_to_our_own_accounts_only():
    bindings = [o for o in render(*EVERYTHING) if o["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    assert len(bindings) == len(rendered_roles())
    for binding in bindings:
        name = binding["metadata"]["name"]
        assert binding["roleRef"]["name"] == name
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "paifang-system"}]


def test_a_gateway_can_write_nothing():
    verbs = {verb for (_, name), rules in rendered_roles().items() if name == "paifang-gateway" for *_, verb in rules}
    assert verbs == {"get", "list", "watch"}


# === health checks of Argo CD ===


def lua(value):
    if isinstance(value, dict):
        return "{" + ",".join(f"[{lua(k)}]={lua(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ",".join(lua(v) for v in value) + "}"
    return json.dumps(value, ensure_ascii=False)


def health(status, generation=2, kind="Api"):
    """What the script in the rendered ConfigMap says of an object."""
    scripts = find(render(*EVERYTHING), "ConfigMap", "paifang-argocd-health")["data"]
    assert set(scripts) == {f"resource.customizations.health.paifang.dev_{kind}" for kind in KINDS}
    script = scripts[f"resource.customizations.health.paifang.dev_{kind}"]
    subject = {"metadata": {"generation": generation}, "status": status} if status is not None else {"metadata": {"generation": generation}}
    program = f"obj = {lua(subject)}\nlocal function check()\n{script}\nend\nlocal hs = check()\nio.write(hs.status, '\\n', hs.message or '')"
    said = run("lua5.1", "-", stdin=None, input=program).split("\n", 1)
    return said[0], said[1]


def conditions(generation=2, **given):
    """The four that are always there, all true, and what is given: True, False, or (status, reason, message)."""
    said = {name: ("True", name, "well") for name in ("Accepted", "ResolvedRefs", "Programmed", "Ready")} | given
    return {"conditions": [{"type": name, "status": status, "reason": reason, "message": message, "observedGeneration": generation,
                            "lastTransitionTime": "2026-01-01T00:00:00Z"} for name, (status, reason, message) in said.items()]}


PENDING = ("Unknown", "Pending", "Waiting for controller")
BAD = ("False", "Invalid", "spec.request.path: must begin with /")

HEALTH = [
    ("all is well", conditions(), "Healthy", "well"),
    ("no status", None, "Progressing", "Waiting for the controller"),
    ("an empty status", {}, "Progressing", "Waiting for the controller"),
    ("a status without conditions", {"conditions": []}, "Progressing", "Waiting for the controller"),
    ("not seen since it changed", conditions(generation=1), "Progressing", "Waiting for the controller to see the last change"),
    ("refused before it changed", conditions(generation=1, Accepted=BAD, Ready=("False", "Invalid", "no")), "Progressing",
     "Waiting for the controller to see the last change"),
    ("a bad edit", conditions(Accepted=BAD, Ready=("False", "Invalid", "no")), "Degraded", "Invalid: spec.request.path: must begin with /"),
    ("a bad edit while the last good release is served", conditions(Accepted=BAD), "Degraded", "Invalid: spec.request.path: must begin with /"),
    ("a reference to nothing", conditions(ResolvedRefs=("False", "BackendNotFound", "no BackendService x"), Ready=("False", "NotServed", "no")), "Degraded",
     "BackendNotFound: no BackendService x"),
    ("another has the domain", conditions(Conflicted=("True", "DomainTaken", "a.example.com is older/binding's"), Ready=("False", "Conflicted", "no")), "Degraded",
     "DomainTaken: a.example.com is older/binding's"),
    ("a part is wrong", conditions(PartiallyInvalid=("True", "StageOffline", "PRE has no backend")), "Degraded", "StageOffline: PRE has no backend"),
    ("published, not served by all", conditions(Ready=("False", "Progressing", "2 of 3 gateways serve release 4")), "Progressing", "2 of 3 gateways serve release 4"),
    ("not published yet", conditions(Programmed=("False", "Pending", "about to be published"), Ready=("False", "Pending", "no")), "Progressing", "about to be published"),
    ("a certificate ends soon", conditions(CertificateExpiring=("True", "CertificateExpiring", "ends in 6 days")), "Healthy", "ends in 6 days"),
]


@pytest.mark.parametrize(("status", "expected", "message"), [row[1:] for row in HEALTH], ids=[row[0] for row in HEALTH])
def test_health(status, expected, message):
    assert health(status) == (expected, message)


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_is_progressing_until_the_controller_has_seen_it(kind):
    """With the status that the definition itself gives a new object."""
    definitions = render(chart="paifang-crds")
    definition = next(d for d in definitions if d["spec"]["names"]["kind"] == kind)
    status = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["default"]
    assert health(status, generation=1, kind=kind) == ("Progressing", PENDING[2])


def test_the_page_on_argo_cd_shows_the_script():
    script = (CHARTS / "paifang/argocd/health.lua").read_text()
    assert f"```lua\n{script}```" in (REPO / "docs/argocd.md").read_text()


# === dashboard ===


# Metrics of a gateway that is in a cluster.
IN_CLUSTER = {"paifang_stale_groups", "paifang_missing_parts", "paifang_config_from_cache", "paifang_services", "paifang_services_without_endpoints"}


def wanted_metrics():
    """What the dashboard asks for, by name."""
    dashboard = json.loads(find(render(*EVERYTHING), "ConfigMap", "paifang-dashboard")["data"]["paifang.json"])
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    return {name for expression in expressions for name in re.findall(r"\bpaifang_(?!dev_)[a-z_]+", expression)}


def exported_metrics(address):
    """What a process shows, by name."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    there = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M):
        there |= {"counter": {f"{name}_total"}, "info": {f"{name}_info"}, "histogram": {f"{name}_{part}" for part in ("bucket", "sum", "count")}}.get(kind, {name})
    return there


def test_the_dashboard_asks_gateways_for_metrics_that_exist(start, folder):
    """test_helm.py asks a controller, and a gateway that is in a cluster."""
    wanted = {name for name in wanted_metrics() if not name.startswith("paifang_controller_")} - IN_CLUSTER
    shutil.copytree(REPO / "config/07-domain-with-https", folder.path, dirs_exist_ok=True)
    gateway = start(folder)
    there = exported_metrics(f"127.0.0.1:{gateway.port('admin')}")
    assert len(wanted) >= 15
    assert wanted <= there, f"the gateway has no {sorted(wanted - there)}"


# === arguments ===


@pytest.mark.parametrize("component", ["controller", "gateway"])
def test_the_program_knows_every_argument(component):
    """With every value set that becomes an argument."""
    schema = json.loads((CHARTS / "paifang/values.schema.json").read_text())
    example = {"size": "1MiB", "count": 7, "time": "3s"}

    def all_of(entry):
        return {name: example[value["$ref"].rpartition("/")[2]] for name, value in entry["properties"].items()}

    instance = schema["$defs"]["instance"]["properties"]
    settings = {"allowBackends": ["169.254.1.0/24"], "allowLoopbackBackends": True, "domainSuffixes": {"a": ["a.example.com"]},
                "defaultDomainSuffixes": ["b.example.com"], "limits": all_of(schema["properties"]["settings"]["properties"]["limits"])}
    defaults = {"workers": 2, "trustProxies": ["10.0.0.0/8"], "limits": all_of(instance["limits"]), "timeouts": all_of(instance["timeouts"])}
    values = json.dumps({"settings": settings, "instanceDefaults": defaults, "controller": {"webhook": {"enabled": False}}})
    command = ["helm", "template", "paifang", CHARTS / "paifang", "--values", "-"]
    deployments = [o for o in yaml.safe_load_all(run(*command, stdin=None, input=values)) if o and o["kind"] == "Deployment"]
    name = {"controller": "paifang-controller", "gateway": "paifang-gateway-default"}[component]
    arguments = find(deployments, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[0] == component
    assert len(arguments) >= 12
    # Help ends a command line that is right so far; a wrong argument in front of it is an error.
    run(paifang.binary(), *arguments, "--help")
    with pytest.raises(AssertionError, match="--unheard-of"):
        run(paifang.binary(), *arguments, "--unheard-of=1", "--help")


# === notes ===


def test_the_example_in_the_notes_is_accepted(folder):
    notes = run("helm", "install", "paifang", CHARTS / "paifang", "--namespace", "paifang-system", "--dry-run=client")
    example = re.search(r"^kubectl apply -f - <<'EOF'\n(.*?)^EOF$", notes, re.M | re.S).group(1)
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / "notes.yaml").write_text(example)
    assert "2 objects" in run(paifang.binary(), "check", folder.path, "--strict")
    assert "kubectl wait --for=condition=Ready" in notes
