"""Renders the chart with Helm's own code and compares what comes out with what its values say.

    chart.py CHART PROGRAM

PROGRAM is imks itself: it says whether the configuration that the chart writes can work.
"""

import json
import os
import re
import subprocess
import sys
import tempfile

import helm_python as helm
import kubernetes_validate
import yaml

PATH, PROGRAM = sys.argv[1:]
CHART = helm.Chart.load(PATH)
# The oldest version that the chart says it needs, and the newest that the schemas know.
KUBERNETES = ("1.27", "1.37")
# The operator of Prometheus brings its own kinds.
FOREIGN = "monitoring.coreos.com/v1"
SECRET = {"name": "secret", "key": "value"}
POSTGRES = {"secrets": {"DATABASE_URL": SECRET}, "config": {"attachments": {"place": "off"}}}
SEVERAL = {**POSTGRES, "replicas": 3}

EVERYTHING = {
    "image": {"repository": "registry.example/imks", "tag": "9.9.9", "pullPolicy": "Always", "pullSecrets": ["pull"]},
    "config": {
        "edit_window": "1h",
        "limits": {"sends": "20/40", "sessions_per_user": 5},
        "engine": {"cors_origins": ["https://a.example", "https://b.example"], "polling": False, "max_payload": 1000000},
        "attachments": {"place": "off"},
    },
    "secrets": {"DATABASE_URL": SECRET, "REDIS_URL": SECRET, "IMKS_CORE_URL": SECRET, "IMKS_WEBHOOK_SECRET": SECRET},
    "files": {"IMKS_CORE_CA": {"name": "core", "key": "ca.crt"}},
    "env": {"RUST_LOG": "info", "IMKS_LOG_FORMAT": "pretty"},
    "tls": {"secretName": "tls"},
    "internal": {"secretName": "internal", "clientCaKey": "ca.crt"},
    "webtransport": {"enabled": True, "service": {"annotations": {"a": "b"}}},
    "service": {"type": "LoadBalancer", "port": 443, "annotations": {"c": "d"}},
    "ingress": {"enabled": True, "className": "nginx", "host": "chat.example", "tlsSecretName": "edge"},
    "persistence": {"enabled": False},
    "drain": {"delaySeconds": 10, "deadlineSeconds": 60},
    "autoscaling": {"enabled": True, "sessionsPerPod": 20000},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "grafanaDashboard": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "internal": [{"podSelector": {"matchLabels": {"app": "backend"}}}],
        "egress": [{"to": [{"namespaceSelector": {}}]}],
    },
    "serviceAccount": {"annotations": {"e": "f"}},
    "podAnnotations": {"g": "h"},
    "podLabels": {"team": "chat"},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "chat", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}

checks = 0


def check(is_true, what):
    global checks
    checks += 1
    assert is_true, what


def same(found, wanted):
    check(found == wanted, f"found {found!r}, wanted {wanted!r}")


def render(values, name="imks"):
    """The documents, by kind and name."""
    CHART.validate_schema(values)
    documents = {}
    for file, text in CHART.render(values, name=name, namespace="chat").items():
        if file.endswith(".txt"):
            continue
        for document in yaml.safe_load_all(text):
            if document:
                place = (document["kind"], document["metadata"]["name"])
                check(place not in documents, f"{place} twice")
                check("apiVersion" in document and document["metadata"]["labels"]["app.kubernetes.io/name"] == "imks", place)
                documents[place] = document
                if document["apiVersion"] != FOREIGN:
                    for version in KUBERNETES:
                        kubernetes_validate.validate(document, version, strict=True)
    return documents


def refused(values, *words):
    """The chart says what is wrong."""
    try:
        render(values)
    except helm.HelmError as error:
        for word in words:
            check(word in str(error), f"{word!r} is not in: {error}")
        return
    raise AssertionError(f"not refused: {values}")


def pod(documents, name="imks"):
    return documents["Deployment", name]["spec"]["template"]["spec"]


def environment(documents, name="imks"):
    (container,) = pod(documents, name)["containers"]
    names = [one["name"] for one in container["env"]]
    same(len(names), len(set(names)))
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def can_start(documents, **more):
    """imks itself accepts the file and the variables, with files where Kubernetes puts them."""
    with tempfile.TemporaryDirectory() as directory:
        variables = {}
        for name, value in environment(documents).items():
            if not isinstance(value, str):
                value = "10.1.2.3"
            value = value.replace("$(POD_IP)", "10.1.2.3")
            if value.startswith("/etc/imks/"):
                value = directory + value
                os.makedirs(os.path.dirname(value), exist_ok=True)
                with open(value, "w") as file:
                    file.write(more.get(os.path.basename(value), ""))
            variables[name] = value
        with open(variables["IMKS_CONFIG"], "w") as file:
            file.write(documents["ConfigMap", "imks"]["data"]["imks.toml"])
        told = subprocess.run([PROGRAM, "check-config", "--no-environment"], env=variables, capture_output=True, text=True)
        check(told.returncode == 0, told.stderr)
        check("this variable is not known" not in told.stderr, told.stderr)
        rows = (re.split(r"  +", line) for line in told.stdout.splitlines())
        return {row[0]: row[1] for row in rows if len(row) >= 3}


def defaults():
    same(CHART.metadata["kubeVersion"], f">={KUBERNETES[0]}.0-0")
    report = helm.lint(PATH, {}, strict=True, kube_version="v1.30.0")
    bad = [message for message in report["messages"] if message["severity"] >= 2]
    same((report["errors"] or [], bad), ([], []))
    documents = render({})
    kinds = sorted(kind for kind, _ in documents)
    same(kinds, ["ConfigMap", "Deployment", "PersistentVolumeClaim", "Service", "Service", "Service", "ServiceAccount"])
    deployment = documents["Deployment", "imks"]["spec"]
    same((deployment["replicas"], deployment["strategy"]), (1, {"type": "Recreate"}))
    same(documents["PersistentVolumeClaim", "imks"]["metadata"]["annotations"], {"helm.sh/resource-policy": "keep"})
    shown = can_start(documents)
    same((shown["IMKS_LISTEN"], shown["IMKS_INTERNAL_LISTEN"]), ("0.0.0.0:3000", "0.0.0.0:9090"))
    same((shown["IMKS_DATA_DIR"], shown["IMKS_ADAPTER"], shown["DATABASE_URL"]), ("/data", "local", "(not set)"))
    check("IMKS_CLUSTER_ADDRESS" not in environment(documents), "a single node has no others")


def confinement():
    for values in ({}, EVERYTHING):
        spec = pod(render(values))
        (container,) = spec["containers"]
        same(spec["automountServiceAccountToken"], False)
        check(spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 65532, spec)
        same(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        same(
            container["securityContext"],
            {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        )
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        same(mounts, {volume["name"] for volume in spec["volumes"]})
        writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
        same(writable, ["/data"])


def probes_and_drain():
    for values, internal, scheme, grace in (
        ({}, "HTTP", "HTTP", 50),
        ({"internal": {"secretName": "internal"}}, "HTTPS", "HTTP", 50),
        ({"tls": {"secretName": "tls"}}, "HTTP", "HTTPS", 50),
        (EVERYTHING, "HTTPS", "HTTPS", 85),
    ):
        documents = render(values)
        (container,) = pod(documents)["containers"]
        paths = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
        for name in ("startupProbe", "livenessProbe"):
            same(paths[name], {"path": "/health/live", "port": "internal", "scheme": internal})
        same(paths["readinessProbe"], {"path": "/health/ready", "port": "http", "scheme": scheme})
        same(pod(documents)["terminationGracePeriodSeconds"], grace)
        names = environment(documents)
        seconds = sum(int(names[name].removesuffix("s")) for name in ("IMKS_DRAIN_DELAY", "IMKS_DRAIN_DEADLINE"))
        check(seconds + 10 < grace, "the drain fits into the grace period")
        ports = {port["name"]: (port["containerPort"], port["protocol"]) for port in container["ports"]}
        same((ports["http"], ports["internal"]), ((3000, "TCP"), (9090, "TCP")))


def several_pods():
    documents = render(SEVERAL)
    deployment = documents["Deployment", "imks"]["spec"]
    same(deployment["strategy"], {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    same(environment(documents)["IMKS_CLUSTER_ADDRESS"], "$(POD_IP):3000")
    data = {"name": "data", "emptyDir": {}}
    check(data in pod(documents)["volumes"] and "PersistentVolumeClaim" not in {kind for kind, _ in documents}, "nothing is kept")
    one = render({"secrets": POSTGRES["secrets"]})
    check(("PersistentVolumeClaim", "imks") in one, "attached files are")
    same(one["Deployment", "imks"]["spec"]["strategy"], {"type": "Recreate"})
    shared = {**SEVERAL, "config": {}, "persistence": {"accessMode": "ReadWriteMany", "storageClass": "nfs"}}
    documents_shared = render(shared)
    same(documents_shared["Deployment", "imks"]["spec"]["strategy"]["type"], "RollingUpdate")
    same(documents_shared["PersistentVolumeClaim", "imks"]["spec"]["storageClassName"], "nfs")
    names = list(environment(documents))
    check(names.index("POD_IP") < names.index("IMKS_CLUSTER_ADDRESS"), "a variable is known to those after it only")
    shown = can_start(documents, DATABASE_URL="postgres://imks:hunter2@db/imks")
    same((shown["IMKS_ADAPTER"], shown["IMKS_CLUSTER_ADDRESS"]), ("postgres", "10.1.2.3:3000"))
    (volume,) = [volume for volume in pod(documents)["volumes"] if volume["name"] == "secrets"]
    items = [{"key": "value", "path": "DATABASE_URL"}]
    same(volume["projected"]["sources"], [{"secret": {"name": "secret", "items": items}}])
    same(environment(documents)["DATABASE_URL_FILE"], "/etc/imks/secrets/DATABASE_URL")
    same(documents["PodDisruptionBudget", "imks"]["spec"]["maxUnavailable"], 1)
    spread = pod(documents)["topologySpreadConstraints"]
    same([one["topologyKey"] for one in spread], ["kubernetes.io/hostname", "topology.kubernetes.io/zone"])
    selector = deployment["selector"]["matchLabels"]
    labels = deployment["template"]["metadata"]["labels"]
    for one in [selector, *(one["labelSelector"]["matchLabels"] for one in spread)]:
        check(one.items() <= labels.items(), one)
    nodes = documents["Service", "imks-nodes"]["spec"]
    check(nodes["clusterIP"] == "None" and nodes["publishNotReadyAddresses"] and nodes["ports"][0]["port"] == 3000, nodes)
    six = render({**SEVERAL, "ipFamily": "IPv6"})
    shown = environment(six)
    same((shown["IMKS_LISTEN"], shown["IMKS_CLUSTER_ADDRESS"]), ("[::]:3000", "[$(POD_IP)]:3000"))
    for secret, adapter in (("REDIS_URL", "redis"), ("NATS_URL", "nats")):
        documents = render({**SEVERAL, "secrets": {**POSTGRES["secrets"], secret: SECRET}})
        same(environment(documents)["IMKS_ADAPTER"], adapter)
    check("PodDisruptionBudget" not in {kind for kind, _ in render({})}, "it would keep a single pod from ever moving")


def everything():
    report = helm.lint(PATH, EVERYTHING, strict=True)
    same([message for message in report["messages"] if message["severity"] >= 2], [])
    documents = render(EVERYTHING)
    kinds = {kind for kind, _ in documents}
    wanted = {"Ingress", "HorizontalPodAutoscaler", "PodDisruptionBudget", "ServiceMonitor", "PrometheusRule", "NetworkPolicy"}
    check(wanted <= kinds and "PersistentVolumeClaim" not in kinds, kinds)
    (container,) = pod(documents)["containers"]
    same(container["image"], "registry.example/imks:9.9.9")
    shown = can_start(
        documents,
        DATABASE_URL="postgres://imks:hunter2@db/imks",
        REDIS_URL="redis://redis",
        IMKS_CORE_URL="https://core:9000",
        IMKS_WEBHOOK_SECRET="whsec_" + "QUFB" * 8,
    )
    same((shown["IMKS_LIMIT_SENDS"], shown["IMKS_LIMIT_SESSIONS_PER_USER"]), ("20/40", "5"))
    same(shown["IMKS_CORS_ORIGINS"], "https://a.example,https://b.example")
    same((shown["IMKS_ENGINE_POLLING"], shown["IMKS_ENGINE_MAX_PAYLOAD"]), ("false", "1000000"))
    same((shown["IMKS_EDIT_WINDOW"], shown["IMKS_LOG_FORMAT"], shown["IMKS_WEBTRANSPORT"]), ("1h", "pretty", "on"))
    udp = documents["Service", "imks-webtransport"]["spec"]
    same((udp["type"], udp["sessionAffinity"], udp["externalTrafficPolicy"]), ("LoadBalancer", "ClientIP", "Local"))
    same([(port["protocol"], port["port"]) for port in udp["ports"]], [("UDP", 443)])
    tcp = documents["Service", "imks"]["spec"]
    same([(port["protocol"], port["port"]) for port in tcp["ports"]], [("TCP", 443)])
    check("sessionAffinity" not in tcp, "requests go to the owner of their session")
    scaling = documents["HorizontalPodAutoscaler", "imks"]["spec"]
    same([metric["type"] for metric in scaling["metrics"]], ["Resource", "Pods"])
    same(scaling["metrics"][1]["pods"], {"metric": {"name": "imks_sessions"}, "target": {"type": "AverageValue", "averageValue": "20000"}})
    check("replicas" not in documents["Deployment", "imks"]["spec"], "the autoscaler decides")
    monitor = documents["ServiceMonitor", "imks"]["spec"]
    internal = documents["Service", "imks-internal"]
    check(monitor["selector"]["matchLabels"].items() <= internal["metadata"]["labels"].items(), monitor)
    for other in ("imks", "imks-nodes", "imks-webtransport"):
        labels = documents["Service", other]["metadata"]["labels"]
        check(not monitor["selector"]["matchLabels"].items() <= labels.items(), f"{other} would be scraped too")
    same((monitor["endpoints"][0]["port"], monitor["endpoints"][0]["scheme"]), (internal["spec"]["ports"][0]["name"], "https"))
    rules = documents["PrometheusRule", "imks"]["spec"]["groups"][0]["rules"]
    with open(os.path.join(PATH, "../../prometheus/imks.rules.yml")) as file:
        same(rules, yaml.safe_load(file)["groups"][0]["rules"])
    board = json.loads(documents["ConfigMap", "imks-dashboard"]["data"]["imks.json"])
    same(board["uid"], "imks")
    policy = documents["NetworkPolicy", "imks"]["spec"]
    clients, others, operators = policy["ingress"]
    check("from" not in clients and {port["port"] for port in clients["ports"]} == {3000}, clients)
    check(others["from"][0]["podSelector"]["matchLabels"].items() <= pod_labels(documents).items(), others)
    same({port["port"] for port in operators["ports"]}, {9090})
    same(operators["from"][0], {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}})
    same((len(operators["from"]), policy["policyTypes"]), (2, ["Ingress", "Egress"]))


def pod_labels(documents):
    return documents["Deployment", "imks"]["spec"]["template"]["metadata"]["labels"]


def names():
    documents = render({**SEVERAL, "tls": {"secretName": "tls"}}, name="blue")
    check({name for _, name in documents} == {"blue-imks", "blue-imks-internal", "blue-imks-nodes"}, documents.keys())
    same(pod(documents, "blue-imks")["serviceAccountName"], "blue-imks")
    config = {"config": {"edit_window": "2h"}}
    sums = [render(values)["Deployment", "imks"]["spec"]["template"]["metadata"]["annotations"] for values in ({}, config)]
    check(sums[0] != sums[1], "a change of the configuration is a new pod")


def packaged():
    """An archive has the alerts and the dashboard too, which are links in the repository."""
    with tempfile.TemporaryDirectory() as directory:
        archive = helm.package(PATH, destination=directory)
        with helm.Chart.load(archive) as chart:
            wanted = {"files/imks.rules.yml": "ImksAbsent", "files/dashboard.json": "imks_sessions"}
            found = {file["name"]: file["data"] for file in chart.files}
            for name, word in wanted.items():
                check(word in found[name], name)


def refusals():
    refused({"replicas": 2}, "several pods need PostgreSQL", "secrets.DATABASE_URL")
    refused({"autoscaling": {"enabled": True}}, "several pods need PostgreSQL")
    refused({"persistence": {"enabled": False}}, "messages", "persistence.enabled")
    refused({**SEVERAL, "config": {}}, "attached files", "config.attachments.place")
    refused({**SEVERAL, "config": {"attachments": {"place": "off"}, "cluster": {"adapter": "local"}}}, "do not hear each other")
    refused({"webtransport": {"enabled": True}}, "tls.secretName")
    refused({"internal": {"clientCaKey": "ca.crt"}}, "internal.secretName")
    refused({"ingress": {"enabled": True}}, "ingress.host")
    refused({"config": {"listen": "0.0.0.0:80"}}, "config.listen is set by the chart")
    refused({"config": {"drain": {"delay": "1s"}}}, "drain.delaySeconds")
    refused({"config": {"database": {"url": "postgres://imks:hunter2@db/imks"}}}, "is a secret", "secrets.DATABASE_URL")
    for name, value in (
        ("IMKS_LISTEN", "service.port"),
        ("IMKS_ADAPTER", "config.cluster.adapter"),
        ("IMKS_WEBTRANSPORT", "webtransport.enabled"),
        ("IMKS_TLS_CERT", "tls.secretName"),
        ("IMKS_INTERNAL_CLIENT_CA", "internal.clientCaKey"),
        ("IMKS_DRAIN_DELAY", "drain.delaySeconds"),
        ("IMKS_CONFIG", "config"),
        ("POD_IP", "ipFamily"),
        ("DATABASE_URL_FILE", "secrets.DATABASE_URL"),
    ):
        refused({"env": {name: "x"}}, f"{name} is set by the chart", f"use the value {value} ")
    refused({"files": {"IMKS_CORE_CA": SECRET}, "env": {"IMKS_CORE_CA": "x"}}, "files.IMKS_CORE_CA")
    refused({"config": {"zz": 1}}, "config.zz is no setting of imks", "imks config init")
    refused({"config": {"limits": {"zz": 1}}}, "config.limits.zz is no setting of imks")
    refused({"config": {"zz": {}}}, "config.zz is no section of imks.toml")
    refused({"config": {"limits": 1}}, "config.limits is no setting of imks")
    refused({"env": {"IMKS_ZZ": "1"}}, "env.IMKS_ZZ is no setting of imks")
    for key, variable, text in (
        ("core_url", "IMKS_CORE_URL", "http://u:pw@core:9000"),
        ("auth.url", "IMKS_AUTH_URL", "https://u:pw@app/login"),
        ("auth.url", "IMKS_AUTH_URL", "https://app/login?key=pw"),
        ("webhook.url", "IMKS_WEBHOOK_URL", "https://a.example/hook,https://u:pw@b.example/hook"),
        ("events.secret", "IMKS_EVENTS_SECRET", "whsec_pw"),
        ("webhook.secret", "IMKS_WEBHOOK_SECRET", "whsec_pw"),
        ("token.hmac_secret", "IMKS_TOKEN_HMAC_SECRET", "pw" * 16),
        ("database.url", "DATABASE_URL", "postgres://u:pw@h/d"),
        ("cluster.redis_url", "REDIS_URL", "redis://h"),
    ):
        section, _, inner = key.rpartition(".")
        config = {section: {inner: text}} if section else {inner: text}
        refused({"config": config}, f"config.{key} is a secret", f"secrets.{variable}")
        refused({"env": {variable: text}}, f"env.{variable} is a secret", f"secrets.{variable}")
    twice = {"secrets": {"IMKS_CORE_URL": SECRET}, "env": {"IMKS_CORE_URL": "http://core:9000"}}
    refused(twice, "IMKS_CORE_URL is there twice")
    refused({"secretEnv": {"IMKS_WEBHOOK_SECRET": SECRET}}, "secretEnv")
    render({"config": {"core_url": ["http://a:9000", "http://b:9000"]}})
    plain = render({"config": {"core_url": "http://core:9000"}, "env": {"IMKS_AUTH_URL": "", "TZ": "UTC", "RUST_BACKTRACE": "1"}})
    check('core_url = "http://core:9000"' in plain["ConfigMap", "imks"]["data"]["imks.toml"], "an address without a password is no secret")
    refused({**POSTGRES, "autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}, "minReplicas")
    # What the schema finds: names that do not exist, and values of the wrong kind.
    for values, word in (
        ({"replicaCount": 2}, "replicaCount"),
        ({"replicas": 0}, "replicas"),
        ({"service": {"type": "External"}}, "type"),
        ({"service": {"port": 70000}}, "port"),
        ({"persistence": {"size": "lots"}}, "size"),
        ({"secrets": {"DATABASE_URL": "postgres://db"}}, "DATABASE_URL"),
        ({"secrets": {"PASSWORD": SECRET}}, "PASSWORD"),
        ({"drain": {"deadlineSeconds": 0}}, "deadlineSeconds"),
        ({"env": {"RUST_LOG": 1}}, "RUST_LOG"),
        ({"config": {"limits": {"deep": {"er": 1}}}}, "limits"),
    ):
        refused(values, word)


def settings_are_those_of_the_program():
    """What can be a secret in a file, in the chart and in imks."""
    table = subprocess.run([PROGRAM, "check-config", "--table"], env={}, capture_output=True, text=True, check=True).stdout
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    with_file = {match[1] for row in rows if (match := re.match(r"\| `(\w+)` or `\1_FILE`", row))}
    same(set(CHART.schema["properties"]["secrets"]["properties"]), with_file)
    known = {match[1] for row in rows if (match := re.match(r"\| `(\w+)`", row))}
    check(set(CHART.schema["properties"]["files"]["properties"]) <= known, "files")
    with open(os.path.join(PATH, "files/settings.json")) as file:
        settings = json.load(file)
    same(set(settings["variables"].values()), {name for name in known if name.isupper()})
    same({settings["variables"][key] for key in settings["secrets"]}, with_file)
    with open(os.path.join(PATH, "templates/deployment.yaml")) as file:
        named = set(re.findall(r"\b(IMKS_[A-Z_]+)", file.read())) - {"IMKS_CONFIG", "IMKS_PORT"}
    check(named <= known, named - known)
    with open("Cargo.toml" if os.path.exists("Cargo.toml") else os.path.join(PATH, "../../../Cargo.toml")) as file:
        version = re.search(r'^version = "(.*)"', file.read(), re.M)[1]
    same((CHART.metadata["appVersion"], CHART.version), (version, version))


for part in (defaults, confinement, probes_and_drain, several_pods, everything, names, packaged, refusals, settings_are_those_of_the_program):
    part()
print(f"{checks} checks passed")
