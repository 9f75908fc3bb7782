"""`python -m tools.evacuate PLAN.toml`: plan how hosts are emptied of their VMs; with --execute carry it out.

python -m tools.evacuate --example >plan.toml
python -m tools.evacuate plan.toml --html plan.html --json plan.json
python -m tools.evacuate --generate 1 --vms 100 --hosts 20 --uplinks 4 >plan.toml
python -m tools.evacuate plan.toml --draws 2000 --cluster local:4
python -m tools.evacuate plan.toml --execute --tls-dir certs
"""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.main import Command, show
from pipeline.cli.parser import Parser
from pipeline.cli.values import Given
from pipeline.errors import FerryError, HostError, RunFailed, UsageError
from pipeline.progress import open_progress
from pipeline.report.files import save_json, save_text
from tools.cluster.connect import CONNECT_SECONDS, ClusterAddress, check_dask, connected, read_cluster
from tools.evacuate.trust import Trust
from tools.fleet.generator import MOST_HOSTS, MOST_VMS, Shape, generate

if TYPE_CHECKING:
    from tools.evacuate.plan_file import Plan

EXAMPLE = Path(__file__).parent.parent / "fleet" / "example.toml"
DRAWS, MOST_DRAWS = 100, 1_000_000
DRAWN_VMS = 500
"""Plans of more VMs are drawn only where --draws says so."""

PLANNING = ("json", "html", "draws", "cluster", "cluster_tls", "exact", "no_baselines", "execute", "state")
SECURITY = ("tls_dir", "insecure", "secret")


@dataclass(frozen=True)
class Request:
    """A checked command line."""

    path: Path
    json: str | None
    html: str | None
    draws: int | None
    cluster: ClusterAddress | None
    exact: bool
    baselines: bool
    execute: bool
    state: Path
    trust: Trust
    quiet: bool


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(
        program,
        "Plan how hosts are emptied of their VMs: order, destination, method, channels; or carry it out.",
        *(1, 3),
        epilog="PLAN.toml: docs/evacuate.md, or --example. Needs ramferry[fleet].",
    )
    add = parser.add_argument
    add("plan", metavar="PLAN.toml", nargs="*", help="VMs, hosts, links and limits")
    add = parser.add_argument_group("the plan").add_argument
    add("--json", metavar="FILE", help="write the plan as JSON; - is standard output (default none)")
    add("--html", metavar="FILE", help="write the plan as one page with its picture (default none)")
    add(
        *("--draws",),
        metavar="N",
        help=f"play it so often under chance (default {DRAWS}, none for more than {DRAWN_VMS} VMs)",
    )
    flag: dict[str, Any] = {"action": "store_const", "const": True}
    add("--exact", **flag, help="for up to 12 VMs: prove what the best plan takes, by OR-tools (default off)")
    add("--no-baselines", **flag, help="leave out what others would do, but for LPT (default: played too)")
    add = parser.add_argument_group("carrying it out").add_argument
    add("--execute", **flag, help="start both ends of each migration, and score the plan (default off)")
    add("--state", metavar="FILE", help="how far it is, to go on from (default PLAN.toml.state.json)")
    add("--tls-dir", metavar="DIR", help="for both ends: certificates, as send and recv take them")
    add("--insecure", **flag, help="for both ends: neither TLS nor a secret (default off)")
    add("--secret", metavar="FILE", help="for both ends, on one host: a file with a secret")
    add("--quiet", **flag, help="say nothing meanwhile (default off)")
    add = parser.add_argument_group("where it is worked out").add_argument
    add("--cluster", metavar="WHERE", help="Dask: local:N workers, or a scheduler's address (default: here)")
    add("--cluster-tls", metavar="DIR", help="Dask's TLS: ca-cert.pem, client-cert.pem, client-key.pem")
    add = parser.add_argument_group("plans to try").add_argument
    add("--example", **flag, help="print a plan with every key")
    add("--generate", metavar="SEED", help="print a plan made from a seed")
    add("--vms", metavar="N", help="--generate: VMs (default 40)")
    add("--hosts", metavar="N", help="--generate: hosts (default 16)")
    add("--uplinks", metavar="N", help="--generate: racks, each behind an uplink (default 1)")
    return parser


def run(given: Given, command: list[str]) -> int:
    """Plan, print, carry out if asked; the exit code."""
    if given.flag("example") or given.has("generate"):
        return _print_a_plan(given)
    given.refuse(("vms", "hosts", "uplinks"), "belongs to --generate SEED")
    request = read(given)
    for library in ("simpy",):
        if importlib.util.find_spec(library) is None:
            raise HostError(f"tools.evacuate needs {library}: pip install 'ramferry[fleet]'")
    progress = open_progress(request.quiet)
    try:
        return _planned(request, command, progress.say)
    finally:
        progress.close()


def _print_a_plan(given: Given) -> int:
    asked = "--example" if given.flag("example") else "--generate"
    given.refuse((*PLANNING, *SECURITY), f"is for a plan; leave out {asked}")
    if given.rest("plan"):
        raise UsageError(f"{asked}: takes no PLAN.toml")
    if given.flag("example"):
        given.refuse(("generate", "vms", "hosts", "uplinks"), "leave out --example")
        show(EXAMPLE.read_text().rstrip())
        return 0
    hosts = given.whole("hosts", 2, MOST_HOSTS, 16)
    shape = Shape(given.whole("vms", 1, MOST_VMS, 40), hosts, given.whole("uplinks", 1, hosts, 1))
    show(generate(given.whole("generate", 0, 1 << 62, 0), shape).rstrip())
    return 0


def read(given: Given) -> Request:
    """Raises UsageError."""
    plans = given.rest("plan")
    if len(plans) != 1:
        raise UsageError("name one PLAN.toml, or --example, or --generate SEED (see --help)")
    execute, path = given.flag("execute"), Path(plans[0])
    if not execute:
        given.refuse(("state", *SECURITY), "belongs to --execute")
    if given.has("cluster_tls") and not given.has("cluster"):
        raise UsageError("--cluster-tls: belongs to --cluster")
    json, html, cluster = given.new_file("json"), given.new_file("html"), given.text("cluster")
    if html == "-":
        raise UsageError("--html -: name a file")
    trust = Trust(given.text("tls_dir"), given.text("secret"), given.flag("insecure"))
    if trust.tls_dir is not None:
        given.refuse(("secret", "insecure"), "leave it out, or --tls-dir")
    state = given.new_file("state") or f"{path}.state.json"
    _check_apart({"the plan": str(path), "--json": json, "--html": html, "--state": state})
    if execute and not trust.options:
        raise UsageError("--execute: say how both ends trust each other: --tls-dir, --secret or --insecure")
    draws = given.whole("draws", 0, MOST_DRAWS, 0) if given.has("draws") else None
    return Request(
        path=path,
        json=json,
        html=html,
        draws=draws,
        cluster=None if cluster is None else read_cluster(cluster, given.text("cluster_tls")),
        exact=given.flag("exact"),
        baselines=not given.flag("no_baselines"),
        execute=execute,
        state=Path(state),
        trust=trust,
        quiet=given.flag("quiet"),
    )


def _check_apart(files: dict[str, str | None]) -> None:
    """Raises UsageError where one file is to be two things."""
    seen: dict[Path, str] = {}
    for name, path in files.items():
        if path is None or path == "-":
            continue
        place = Path(path).resolve()
        if place in seen:
            raise UsageError(f"{name} {path}: is {seen[place]} too; name another file")
        seen[place] = name


def _planned(request: Request, command: list[str], say: Any) -> int:
    from tools.evacuate.plan_file import read_plan
    from tools.evacuate.state import only_one

    plan = read_plan(request.path)
    with only_one(request.path) if request.execute else nullcontext():
        return _of_plan(request, plan, command, say)


def _of_plan(request: Request, plan: Plan, command: list[str], say: Any) -> int:
    from tools.evacuate.document import document_of
    from tools.evacuate.draws import chances_of
    from tools.evacuate.exact import exact_seconds
    from tools.evacuate.planner import make_plan
    from tools.evacuate.readiness import check_ready
    from tools.evacuate.spreading import spread_over
    from tools.evacuate.state import read_state
    from tools.evacuate.timeline import timeline

    state = read_state(request.state, request.path, plan) if request.execute else None
    rest = plan if state is None else state.rest_of(plan)
    if not rest.vms:
        show(f"All {len(plan.vms)} VMs have moved. To begin anew, remove {request.state}.")
        return 0
    if state is not None:
        check_ready(rest, request.trust, has_cluster=request.cluster is not None)
    if request.cluster is not None:
        check_dask()
        if request.cluster.address:
            say(f"connecting to {request.cluster.address}, for up to {CONNECT_SECONDS:g} s")
    with nullcontext() if request.cluster is None else connected(request.cluster) as client:
        say(f"planning {len(rest.vms)} VMs")
        planned = make_plan(rest, baselines=request.baselines)
        draws = _draws(request, rest)
        chances = None
        if draws:
            say(f"playing {draws} draws")
            chances = chances_of(planned.question, planned.chosen.strategy, draws, spread_over(client))
        exact = None
        if request.exact:
            longest = max(one.total_seconds for one in (planned.chosen, *planned.baselines.values()))
            exact = exact_seconds(planned.question, longest)
        document = {**document_of(planned, chances, exact), "command": command}
        if state is None:
            if request.json != "-":
                show(timeline(document))
            _write(request, document)
            return 0
        if request.json != "-":
            show(timeline(document))
        return _execute(request, planned, document, state, client, say)


def _draws(request: Request, plan: Plan) -> int:
    if request.draws is not None:
        return request.draws
    return DRAWS if len(plan.vms) <= DRAWN_VMS else 0


def _write(request: Request, document: dict[str, Any]) -> None:
    from tools.evacuate.page import page

    if request.html is not None:
        try:
            save_text(page(document), Path(request.html))
        except OSError as error:
            raise RunFailed(f"--html {request.html}: {error.strerror}") from error
    if request.json is not None:
        save_json(document, request.json)


def _execute(
    request: Request, planned: Any, document: dict[str, Any], state: Any, client: Any, say: Any
) -> int:
    from tools.evacuate.ends import Here, OnWorkers
    from tools.evacuate.execution import Execution
    from tools.evacuate.score import score_of, score_text

    state.save()  # now, since later it would be too late to say that it cannot be
    most = 4 + 2 * len(planned.question.jobs)
    starter = Here(most) if client is None else OnWorkers(client, most)
    execution = Execution(planned, starter, state, request.trust.options, say)
    error: FerryError | None = None
    try:
        execution.run()
    except FerryError as found:
        error = found
    finally:
        starter.close()
    score = score_of(document, execution.rows)
    status = {"status": "completed", "error": None}
    if error is not None:
        status = {"status": error.status, "error": str(error)}
    if request.json != "-":
        show(score_text(score))
    _write(request, {**document, **status, "execution": score})
    if error is not None:
        raise error
    return 0


COMMAND = Command(build_parser, run)
