"""The container files name what the code has: ports, paths, programs, extras, stages, options."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import cast

import pytest
import yaml
from fastapi.routing import APIRoute

import hybridserve_llm
from hybridserve_llm.config.cascade import ServerConfig
from hybridserve_llm.server.parts import Parts
from hybridserve_llm.server.routes import build_routes
from launch.options import LaunchOptions, read_command_line

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "launch/deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))
CASCADES = {"cpu": COMPOSE["services"]["cascade-cpu"], "gpu": COMPOSE["services"]["cascade-gpu"]}
PORT = ServerConfig().port
# No handler looks at the parts before it is called.
PATHS = {
    route.path for route in build_routes(cast(Parts, None)).routes if isinstance(route, APIRoute)
}


def of(instruction: str) -> list[str]:
    """Arguments of every such instruction of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [" ".join(rest.split()) for word, rest in lines if word == instruction]


def json_of(instruction: str) -> list[str]:
    (arguments,) = of(instruction)
    return cast(list[str], json.loads(arguments))


def health_program() -> str:
    """The program of the health check, for this interpreter's `-c`."""
    (check,) = of("HEALTHCHECK")
    words = json.loads(check.partition("CMD ")[2])
    assert words[:2] == ["python", "-c"]  # the image has no curl
    return cast(str, words[2])


def stages() -> dict[str, str]:
    """What every stage is built from, by its name."""
    pairs = [rest.split(" AS ") for rest in of("FROM")]
    return {name: base for base, name in pairs}


def test_the_container_starts_a_program_with_options_that_it_has() -> None:
    program, *options = json_of("ENTRYPOINT")
    assert program in PROJECT["project"]["scripts"]
    read = read_command_line([*options, *json_of("CMD")])
    assert isinstance(read, LaunchOptions)
    assert (read.demo, read.host, read.port) == (True, "0.0.0.0", PORT)
    assert read.run_folder is not None
    assert any(read.run_folder.is_relative_to(volume) for volume in json_of("VOLUME"))


def test_port_and_paths_are_the_front_ends() -> None:
    assert of("EXPOSE") == [str(PORT)]
    assert f"'127.0.0.1', {PORT}" in health_program()
    (asked,) = re.findall(r"'GET', '(.+?)'", health_program())
    (job,) = PROMETHEUS["scrape_configs"]
    assert asked == "/health"
    assert {asked, job["metrics_path"]} <= PATHS


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a server that answers every GET with `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def is_healthy(port: int) -> bool:
    program = health_program().replace(str(PORT), str(port))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    return done.returncode == 0


def test_the_health_check_passes_only_what_answers_well() -> None:
    with answering(200) as port:
        assert is_healthy(port)
    assert not is_healthy(port)  # nothing listens there any more
    with answering(503) as port:
        assert not is_healthy(port)


def test_every_stage_comes_from_a_pinned_image_or_an_earlier_stage() -> None:
    earlier: set[str] = set()
    for name, base in stages().items():
        assert base in earlier | {"${PYTHON_IMAGE}"}
        earlier.add(name)
    assert any(
        re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+", line) for line in of("ARG")
    )
    assert re.fullmatch(r"\S+:v\d+\.\d+\.\d+", COMPOSE["services"]["prometheus"]["image"])


def test_final_stages_hold_no_build_stage_and_no_root() -> None:
    assert {name for name, base in stages().items() if base == "runtime"} == set(CASCADES)
    assert of("USER") == ["10001:10001"] * len(CASCADES)
    copied = [rest for rest in of("COPY") if rest.startswith("--from=")]
    assert copied == [
        f"--from={name}-builder /opt/hybridserve /opt/hybridserve" for name in CASCADES
    ]
    assert any("useradd --create-home --uid 10001" in run for run in of("RUN"))


def test_every_extra_that_is_installed_is_there() -> None:
    named = [
        extra
        for run in of("RUN")
        for found in re.findall(r"'\.\[(.+?)\]'", run)
        for extra in found.split(",")
    ]
    assert sorted(named) == ["cpu", "drift", "drift", "gpu"]
    assert set(named) <= set(PROJECT["project"]["optional-dependencies"])


def test_the_build_of_pytorch_is_the_makefiles() -> None:
    pinned = r"torch==[\d.]+\+cpu"
    in_makefile = set(re.findall(pinned, (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert set(re.findall(pinned, " ".join(of("RUN")))) == in_makefile
    assert len(in_makefile) == 1


def test_the_label_says_the_version() -> None:
    (label,) = of("LABEL")
    assert f'image.version="{hybridserve_llm.__version__}"' in label


def test_all_that_is_packaged_and_nothing_else_reaches_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[0] == "*"
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert let_in == {*packages, "LICENSE", "README.md", "pyproject.toml"}
    assert all((ROOT / name).exists() for name in let_in)
    assert fnmatch.fnmatch("launch/__pycache__", rules[-1])


@pytest.mark.parametrize("kind", CASCADES)
def test_compose_builds_and_serves_each_target(kind: str) -> None:
    service = CASCADES[kind]
    assert service["profiles"] == [kind]
    assert service["build"]["target"] == kind
    assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
    assert {arg for arg in of("ARG") if "=" not in arg} == set(service["build"]["args"])
    assert service["image"] == f"hybridserve-llm:{kind}"
    assert service["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    mounted = {volume.rsplit(":", 1)[-1] for volume in service["volumes"] if volume[0] != "$"}
    assert mounted == set(json_of("VOLUME"))
    default = re.fullmatch(r"\$\{CASCADE:-(.+)\}", service["command"])
    assert default is not None
    assert default[1].split() == json_of("CMD")


def test_prometheus_finds_the_cascade_under_its_alias() -> None:
    (job,) = PROMETHEUS["scrape_configs"]
    for service in CASCADES.values():
        aliases = service["networks"]["default"]["aliases"]
        assert job["static_configs"] == [{"targets": [f"{name}:{PORT}" for name in aliases]}]
    mounted = [
        volume.split(":")[0]
        for service in ("prometheus", "grafana")
        for volume in COMPOSE["services"][service]["volumes"]
        if volume.startswith("./")
    ]
    assert {Path(name).name for name in mounted} == {
        "prometheus.yml",
        "alerts.yml",
        "datasource.yaml",
        "dashboards.yaml",
        "dashboard.json",
    }
    assert all((DEPLOY / name).is_file() for name in mounted)
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]


def queries_of_dashboard() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_dashboard_and_alerts_name_metrics_that_are_there() -> None:
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(hybridserve_\w+)` \| (\w+)", text, flags=re.MULTILINE)
    known = {name for name, _ in rows} | {
        f"{name}_{part}"
        for name, kind in rows
        if kind == "histogram"
        for part in ("bucket", "sum", "count")
    }
    rules = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
    variables = [one["definition"] for one in DASHBOARD["templating"]["list"]]
    named = set(
        re.findall(r"hybridserve_\w+", " ".join([*queries_of_dashboard(), *rules, *variables]))
    )
    assert len(named) > 20
    assert named <= known


def test_the_dashboard_reads_the_provisioned_source() -> None:
    provisioned = yaml.safe_load((DEPLOY / "grafana/datasource.yaml").read_text(encoding="utf-8"))
    (source,) = provisioned["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_named_volume_is_declared() -> None:
    named = {
        volume.split(":")[0]
        for service in COMPOSE["services"].values()
        for volume in service["volumes"]
        if volume[0].isalpha()
    }
    assert named == set(COMPOSE["volumes"])


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which(
        "hadolint"
    )
    if hadolint is None:
        pytest.skip("hadolint is not installed: the extra dev has it for Linux on x86-64 and arm64")
    done = subprocess.run(
        [hadolint, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"")


def test_promtool_finds_nothing() -> None:
    promtool = shutil.which("promtool", path=Path(sys.executable).parent) or shutil.which(
        "promtool"
    )
    if promtool is None:
        pytest.skip("promtool is not installed: Debian's package prometheus has it")
    done = subprocess.run(
        [promtool, "check", "config", str(DEPLOY / "prometheus.yml")],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
