"""Books in a process of their own: nothing is lost but what dies with it, and that is counted."""

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hybridserve_llm.books.bookkeeper_client import BookkeeperClient
from hybridserve_llm.books.bookkeeper_process import keep_books
from hybridserve_llm.books.bookkeeper_wire import (
    HEAD,
    Assignment,
    Batch,
    BooksReport,
    frame_of,
    length_of,
    value_of,
)
from hybridserve_llm.books.meter_sites import Metered, PowerModel, Probes
from hybridserve_llm.books.notes import Notes
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.cascade import EnergyConfig
from hybridserve_llm.energy.attribution import TokenWeights
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.server.build import BOOKKEEPER
from hybridserve_llm.telemetry.counts import TalliedJoules
from hybridserve_llm.telemetry.json_lines import JsonLinesSettings
from hybridserve_llm.values.answers import Assessment, Usage
from hybridserve_llm.values.engines import Work
from hybridserve_llm.values.ledger import Attempt, FinishedRequest, Ledger, RequestEnd, Verdict
from hybridserve_llm.values.requests import Endpoint

SCRIPTED = (sys.executable, str(Path(__file__).with_name("scripted_bookkeeper.py")))
ATTEMPT = Attempt(tier="small", model="tiny", decision=Verdict.ACCEPT, reason="sure")
ON_A_GPU = Metered(replicas={"small/0": "small"}, gpu_uuids={"small/0": ["G0"]})


def assignment(folder: Path, metered: Metered | None = ON_A_GPU) -> Assignment:
    config = EnergyConfig(sample_interval_s=0.02, settle_interval_s=0.05)
    return Assignment(
        energy_json=config.model_dump_json(),
        metered=metered,
        records=JsonLinesSettings(
            file=folder / "records.jsonl", max_file_bytes=1_000_000, keep_files=1, queue_size=1000
        ),
    )


def keeper_at(
    folder: Path,
    command: tuple[str, ...] = SCRIPTED,
    metered: Metered | None = ON_A_GPU,
    on_settled: Callable[[TalliedJoules], None] = lambda _: None,
) -> BookkeeperClient:
    return BookkeeperClient(
        assignment(folder, metered), command, clock=SystemClock(), on_settled=on_settled
    )


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def ask(keeper: BookkeeperClient, request_id: str) -> None:
    """A request that takes no time worth speaking of."""
    now_s = SystemClock().monotonic_s()
    usage = Usage(prompt_tokens=5, completion_tokens=5)
    work = Work(request_id, "small", "small/0", 1, False, False, now_s, now_s + 1e-6, None, usage)
    keeper.notes.observe(work)
    ledger = Ledger(request_id=request_id, attempts=(ATTEMPT,), tier="small")
    keeper.requests_finished([FinishedRequest(ledger, 0.1, 1.7e9)])


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - another process decides when
            await asyncio.sleep(0.02)


async def stopped(running: "asyncio.Task[None]") -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_requests_are_settled_there_and_told_here(tmp_path: Path) -> None:
    settled: list[TalliedJoules] = []
    keeper = keeper_at(tmp_path, on_settled=settled.append)
    await keeper.start()
    assert (keeper.energy.component, keeper.energy.is_null) == ("gpu", False)
    running = asyncio.create_task(keeper.run())
    ask(keeper, "r")
    await until(lambda: bool(settled))
    await stopped(running)
    (one,) = settled
    assert one.tier == "small"
    assert sum(one.request_energy_j.counts) == 1
    assert one.request_energy_j == one.answer_energy_j
    ledger, energy = lines_of(tmp_path)
    assert (ledger["kind"], ledger["latency_s"]) == ("request", 0.1)
    assert (energy["kind"], energy["active_j"]) == ("energy", one.request_energy_j.sum)
    assert keeper.n_dropped == 0
    assert sum(booked.energy_j for booked in keeper.energy.booked) > 0


async def test_what_was_told_last_is_written_before_the_end(tmp_path: Path) -> None:
    settled: list[TalliedJoules] = []
    keeper = keeper_at(tmp_path, on_settled=settled.append)
    await keeper.start()
    running = asyncio.create_task(keeper.run())
    await asyncio.sleep(0)
    for number in range(50):
        ask(keeper, f"r{number}")
    await stopped(running)
    kinds = [line["kind"] for line in lines_of(tmp_path)]
    assert (kinds.count("request"), kinds.count("energy")) == (50, 50)
    assert sum(sum(one.request_energy_j.counts) for one in settled) == 50
    assert keeper.n_dropped == 0


async def test_without_meters_records_alone_are_kept(tmp_path: Path) -> None:
    keeper = keeper_at(tmp_path, BOOKKEEPER, metered=None)
    await keeper.start()
    running = asyncio.create_task(keeper.run())
    await asyncio.sleep(0)
    keeper.requests_finished([FinishedRequest(Ledger(request_id="r", attempts=()), 0.5, 1.7e9)])
    await stopped(running)
    assert [line["request_id"] for line in lines_of(tmp_path)] == ["r"]
    with pytest.raises(ValueError, match="meters nothing"):
        _ = keeper.energy


async def test_one_that_dies_is_replaced_and_what_died_with_it_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = keeper_at(tmp_path, (*SCRIPTED, "--dies-once", str(tmp_path / "died")))
    await keeper.start()
    running = asyncio.create_task(keeper.run())
    ask(keeper, "lost")
    await until(lambda: keeper.n_dropped > 0)
    assert keeper.n_dropped == 2  # its ledger, and what it cost
    ask(keeper, "kept")  # nothing metered it: the next one has not started yet
    await until(lambda: len(lines_of(tmp_path)) == 2)
    await stopped(running)
    ledger, energy = lines_of(tmp_path)
    assert (ledger["request_id"], energy["request_id"]) == ("kept", "kept")
    assert (energy["active_j"], energy["reason"]) == (None, "it began before its meters did")
    assert keeper.n_dropped == 2
    assert "the bookkeeper ended with status 3; another one is started" in caplog.text


async def test_a_record_file_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").mkdir()
    with pytest.raises(CannotBeDone, match=r"records.file = .*: Is a directory"):
        await keeper_at(tmp_path).start()


async def test_a_program_that_ends_at_once_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(CannotBeDone, match="ended at its start with status 0"):
        await keeper_at(tmp_path, (sys.executable, "-c", "")).start()
    with pytest.raises(CannotBeDone, match=r"the bookkeeper did not start: .*No such file"):
        await keeper_at(tmp_path, ("/nowhere/python",)).start()


def batch_of(at_s: float, begun: list[Work], finished: list[str]) -> Batch:
    ledgers = [Ledger(request_id=name, attempts=(ATTEMPT,), tier="small") for name in finished]
    pack = msgspec.msgpack.encode([FinishedRequest(one, 0.1, 1.7e9) for one in ledgers])
    return Batch(at_s, Notes(begun, []), [msgspec.Raw(pack)])


def test_all_of_a_ledger_reaches_the_bookkeeper() -> None:
    known = Assessment(score=-0.1, features={"length": 3.0, "margin": None}, answer_key="42")
    attempt = Attempt(
        tier="small", model="tiny", decision=Verdict.ESCALATE, reason="low", assessment=known
    )
    ledger = Ledger(
        request_id="r",
        attempts=(attempt, ATTEMPT),
        tier="small",
        endpoint=Endpoint.CHAT,
        end=RequestEnd.ANSWERED,
        certified=True,
        trace={"traceparent": "00-1-2-01"},
    )
    finished = [FinishedRequest(ledger, 0.5, 1.7e9)]
    assert value_of(msgspec.msgpack.encode(finished), list[FinishedRequest]) == finished


class Link:
    """The front end's end of a bookkeeper that runs in a thread."""

    def __init__(self, given: Assignment) -> None:
        self.ours, theirs = socket.socketpair()
        probes = Probes(powercap=Path("/nowhere"))
        self.thread = threading.Thread(target=self._keep, args=(theirs, probes))
        self.thread.start()
        self.ours.sendall(frame_of(given))

    @staticmethod
    def _keep(theirs: socket.socket, probes: Probes) -> None:
        with theirs:
            keep_books(theirs, probes)

    def report(self) -> BooksReport:
        head = self.ours.recv(HEAD.size, socket.MSG_WAITALL)
        return value_of(self.ours.recv(length_of(head), socket.MSG_WAITALL), BooksReport)

    def close(self) -> None:
        self.ours.close()
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()


def test_all_is_written_when_the_front_end_was_killed(tmp_path: Path) -> None:
    link = Link(assignment(tmp_path, None))
    assert link.report() == BooksReport(energy=None)
    link.ours.sendall(frame_of(batch_of(1.0, [], ["a", "b", "c"])))
    link.close()  # as the system does for a process that is gone
    assert [line["request_id"] for line in lines_of(tmp_path)] == ["a", "b", "c"]


def test_a_tiers_model_and_weights_reach_the_bookkeeper(tmp_path: Path) -> None:
    model = PowerModel(batch=(0.0, 4.0), watts=(10.0, 50.0), grade="measured")
    metered = Metered(
        replicas={"small/0": "small"},
        sockets={"small/0": "/run/small.sock"},
        parked_uuids=["G9"],
        power_models={"small": model},
        token_weights={"small": TokenWeights(prompt=0.2)},
        launcher_pid=1,
    )
    given = assignment(tmp_path, metered)
    assert value_of(frame_of(given)[HEAD.size :], Assignment) == given
    link = Link(given)
    first = link.report()
    assert first.energy is not None
    assert (first.energy.component, first.energy.is_null) == ("cpu", False)
    at_s = SystemClock().monotonic_s()
    usage = Usage(prompt_tokens=3, completion_tokens=4)
    work = Work("r", "small", "small/0", 1, False, False, at_s, at_s + 1, None, usage)
    link.ours.sendall(frame_of(batch_of(at_s + 1, [work], [])))
    report = first
    while not any(one.booking == "user" for one in (report.energy or first.energy).booked):
        report = link.report()
    link.close()
    assert report.energy is not None
    (used,) = [one for one in report.energy.booked if one.booking == "user"]
    # One request for a second, at 10 + 40 / 4 W.
    assert (used.energy_j, used.source) == (pytest.approx(20), "model:measured")


def test_a_front_end_that_says_nothing_is_no_work() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        keep_books(theirs, Probes())
