"""The router under a certified policy: what stays certified, what ledger and watch learn."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from builders import chat_request

from hybridserve_llm.cascade.climb import Tier
from hybridserve_llm.cascade.live import LiveAnswer
from hybridserve_llm.cascade.policies import Coverage, Policies
from hybridserve_llm.cascade.risk_policy import RiskBand, RiskPolicy, RiskRule
from hybridserve_llm.cascade.router import CascadeRouter
from hybridserve_llm.confidence.day_zero import DayZeroScorer, Reads
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.confidence.risk_models import LinearModel, RiskModels, StateModel
from hybridserve_llm.errors import EngineUnavailable, InvalidRequest
from hybridserve_llm.testing import FakeClock, FakeEngine, scripted_answer
from hybridserve_llm.values.answers import Assessment, Completion, Seen
from hybridserve_llm.values.ledger import Attempt, Ledger, Outcome, Verdict
from hybridserve_llm.values.requests import Endpoint, GenerateRequest, Overrides

NAMES = ("small", "medium", "giant")
# Scores are sums over two tokens: -0.2, -0.6, -2 and -4.8. The judge below makes of them the
# confidences 0.96, 0.88, 0.6 and 0.04, and the risks 0.02, 0.06, 0.2 and 0.48.
SURE, FAIR, UNSURE, LOST = (-0.1, -0.1), (-0.3, -0.3), (-1.0, -1.0), (-2.4, -2.4)


class ScriptedJudge:
    """Of the answer on the table: P(wrong) is a fifth of -score, and half of it does harm."""

    def judge(self, seen: Sequence[Seen]) -> Assessment:
        own = seen[-1].assessment
        if own.score is None:
            return own
        wrong = -own.score / 5
        return replace(own, confidence=1 - wrong, risk=wrong / 2)

    def entry_risk(self, request: GenerateRequest) -> float | None:
        return None


def rules(accept_at_most: float) -> dict[tuple[int, ...], RiskRule]:
    """Accepts up to this risk; above 0.4, small skips to giant."""
    to_giant = RiskBand(risk_above=accept_at_most, to_tier=2)
    small = (RiskBand(risk_above=accept_at_most, to_tier=1), RiskBand(risk_above=0.4, to_tier=2))
    return {
        (0,): RiskRule(accept_at_most=accept_at_most, bands=small),
        (1,): RiskRule(accept_at_most=accept_at_most, bands=(to_giant,)),
        (0, 1): RiskRule(accept_at_most=accept_at_most, bands=(to_giant,)),
    }


def policy(accept_at_most: float = 0.1, **changes: Any) -> RiskPolicy:
    values: dict[str, Any] = {"chain": (0, 1, 2), "judge": ScriptedJudge(), "is_certified": True}
    return RiskPolicy(rules=rules(accept_at_most), **{**values, **changes})


LAST_ONLY = RiskPolicy(chain=(2,), rules={}, judge=ScriptedJudge(), is_certified=True)
COVERAGE = Coverage(endpoints=frozenset({Endpoint.CHAT}), sampling={"temperature": 0})


@dataclass
class RecordingWatcher:
    """A Watcher that keeps what it is told."""

    level: Literal["normal", "strict", "escalate"] = "normal"
    judgements: list[tuple[str, float | None, bool]] = field(default_factory=list)
    acceptances: list[tuple[str, str, float | None]] = field(default_factory=list)

    def judged(self, tier: str, assessment: Assessment, *, is_accepted: bool) -> None:
        self.judgements.append((tier, assessment.score, is_accepted))

    def accepted(
        self, request: GenerateRequest, tier: str, completion: Completion, assessment: Assessment
    ) -> None:
        self.acceptances.append((tier, completion.answers[0].text, assessment.score))


@dataclass
class KeepingJournal:
    """A RequestJournal that keeps what it gets."""

    ledgers: list[Ledger] = field(default_factory=list)

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for ledger in self.ledgers for attempt in ledger.attempts]

    def request_finished(self, ledger: Ledger, latency_s: float) -> None:
        self.ledgers.append(ledger)


@dataclass
class Cascade:
    """Three tiers on fakes under a certified policy that accepts up to a risk of 0.1."""

    engines: Sequence[FakeEngine]
    default: RiskPolicy = field(default_factory=policy)
    strict: RiskPolicy | None = None
    watcher: RecordingWatcher = field(default_factory=RecordingWatcher)

    def __post_init__(self) -> None:
        scorer = DayZeroScorer(reads=Reads(agreement=True))
        tiers = [
            Tier(name=name, model=f"m-{name}", engine=engine, scorer=scorer)
            for name, engine in zip(NAMES, self.engines, strict=True)
        ]
        policies = Policies(
            default=self.default,
            last_only=LAST_ONLY,
            strict=self.strict,
            coverage=COVERAGE,
            watcher=self.watcher,
        )
        self.router = CascadeRouter(tiers, policies, journal=KeepingJournal(), clock=FakeClock())

    async def ledger(self, **changes: Any) -> Ledger:
        outcome = await self.router.answer(request(**changes))
        assert isinstance(outcome, Outcome)
        return outcome.ledger

    @property
    def asked(self) -> list[int]:
        return [len(engine.requests) for engine in self.engines]


def engine(text: str, logprobs: Sequence[float] = SURE, **parts: Any) -> FakeEngine:
    return FakeEngine(scripted_answer(text, logprobs=logprobs, **parts))


def cascade(
    small: Sequence[float] = SURE, medium: Sequence[float] = SURE, **changes: Any
) -> Cascade:
    engines = [engine("s", small), engine("m", medium), engine("g", LOST)]
    return Cascade(engines, **changes)


def request(**changes: Any) -> GenerateRequest:
    return chat_request(**{"payload": asking(temperature=0), **changes})


def asking(**settings: Any) -> dict[str, Any]:
    """A payload with these settings beside the messages."""
    return {"messages": [{"role": "user", "content": "?"}], **settings}


async def test_an_answer_of_little_risk_is_accepted_with_confidence_and_risk() -> None:
    ledger = await cascade(FAIR).ledger()
    (attempt,) = ledger.attempts
    assert (ledger.tier, ledger.certified) == ("small", True)
    assert ledger.confidence == attempt.confidence == pytest.approx(0.88)
    assert attempt.risk == pytest.approx(0.06)
    assert attempt.reason == "risk 0.06 <= 0.1"
    assert attempt.assessment is None  # told only where it is asked for


async def test_risky_answers_escalate_and_skip_and_the_last_tiers_is_taken() -> None:
    ledger = await cascade(UNSURE, UNSURE).ledger()
    verdicts = [attempt.decision for attempt in ledger.attempts]
    assert verdicts == [Verdict.ESCALATE, Verdict.ESCALATE, Verdict.ACCEPT]
    assert [a.risk for a in ledger.attempts[:2]] == pytest.approx([0.2, 0.2])
    assert (ledger.tier, ledger.certified, ledger.confidence) == ("giant", True, None)

    lost = cascade(LOST)
    skipping = await lost.ledger()
    assert [a.decision for a in skipping.attempts] == [Verdict.SKIP, Verdict.ACCEPT]
    assert lost.asked == [1, 0, 1]
    assert skipping.certified


COVERED: dict[str, dict[str, Any]] = {
    "nothing asked for": {},
    "the same sampling as a float": {"payload": asking(temperature=0.0)},
    "a limit of tokens": {"payload": asking(temperature=0, max_tokens=9), "max_output_tokens": 9},
    "a seed": {"payload": asking(temperature=0, seed=3)},
    "from the first tier on": {"overrides": Overrides(min_tier="small")},
    "the last tier alone": {"overrides": Overrides(min_tier="giant")},
    "up to the last tier": {"overrides": Overrides(max_tier="giant")},
    "the last tier for everything": {"overrides": Overrides(policy="last")},
    "the default policy": {"overrides": Overrides(policy="default")},
    "a confidence": {"overrides": Overrides(min_confidence=0.5)},
}
UNCOVERED: dict[str, dict[str, Any]] = {
    "other sampling": {"payload": asking(temperature=1)},
    "no sampling": {"payload": asking()},
    "more sampling": {"payload": asking(temperature=0, top_k=5)},
    "several choices": {"payload": asking(temperature=0, n=2)},
    "the other endpoint": {
        "payload": {"prompt": "?", "temperature": 0},
        "endpoint": Endpoint.COMPLETIONS,
    },
    "a last resort below the last tier": {"overrides": Overrides(max_tier="medium")},
    "a tier in the middle to begin at": {"overrides": Overrides(min_tier="medium")},
    "a tier by its name": {"overrides": Overrides(min_tier="small", max_tier="small")},
}


@pytest.mark.parametrize("changes", COVERED.values(), ids=COVERED)
async def test_what_only_makes_the_cascade_stricter_stays_certified(
    changes: dict[str, Any],
) -> None:
    assert (await cascade().ledger(**changes)).certified
    assert (await cascade(UNSURE, UNSURE).ledger(**changes)).certified


@pytest.mark.parametrize("changes", UNCOVERED.values(), ids=UNCOVERED)
async def test_what_the_certificate_does_not_speak_of_is_answered_uncertified_and_unwatched(
    changes: dict[str, Any],
) -> None:
    for these in (cascade(), cascade(UNSURE)):
        ledger = await these.ledger(**changes)
        assert ledger.tier is not None
        assert not ledger.certified
        assert these.watcher == RecordingWatcher()


async def test_the_policy_of_another_cascade_is_never_certified_nor_watched() -> None:
    these = cascade(default=policy(is_certified=False))
    assert not (await these.ledger()).certified
    assert these.watcher.acceptances == []


async def test_a_failure_on_the_way_ends_the_certificate() -> None:
    down = FakeEngine(EngineUnavailable("tier 'small' is down"))
    these = Cascade([down, engine("m"), engine("g")])
    ledger = await these.ledger()
    assert (ledger.tier, ledger.certified) == ("medium", False)
    assert ledger.confidence == pytest.approx(0.96)
    assert these.watcher.acceptances == []


async def test_a_max_tier_outside_the_chain_is_asked_where_the_chains_first_tier_is_down() -> None:
    down = FakeEngine(EngineUnavailable("tier 'small' is down"))
    these = Cascade([down, engine("m"), engine("g")], default=policy(chain=(0, 2)))
    ledger = await these.ledger(overrides=Overrides(max_tier="medium"))
    assert (ledger.tier, ledger.certified) == ("medium", False)
    assert these.asked == [1, 1, 0]


async def test_an_answer_cut_by_the_clients_limit_is_taken_but_not_certified() -> None:
    cut = {"max_output_tokens": 2, "payload": asking(temperature=0, max_tokens=2)}
    engines = [engine("s", finish_reason="length"), engine("m"), engine("g")]
    these = Cascade(engines)
    ledger = await these.ledger(**cut)
    assert (ledger.tier, ledger.certified) == ("small", False)
    assert these.watcher.acceptances == []

    # The last tier's is what it would have been without a cascade.
    engines = [engine("s", UNSURE), engine("m", UNSURE), engine("g", finish_reason="length")]
    assert (await Cascade(engines).ledger(**cut)).certified


async def test_a_demanded_confidence_is_reached_or_the_last_tier_answers() -> None:
    # 0.88 at small, 0.96 at medium.
    for wanted, tier in ((0.88, "small"), (0.9, "medium"), (0.97, "giant")):
        ledger = await cascade(FAIR).ledger(overrides=Overrides(min_confidence=wanted))
        assert (ledger.tier, ledger.certified) == (tier, True)
    first = ledger.attempts[0]
    assert first.decision is Verdict.ESCALATE
    assert first.reason == "confidence 0.88 < 0.97, which the request demands"


async def test_the_watch_is_told_of_every_judgement_and_of_what_was_accepted() -> None:
    these = cascade(UNSURE, FAIR)
    await these.ledger()
    assert these.watcher.judgements == [("small", -2.0, False), ("medium", -0.6, True)]
    assert these.watcher.acceptances == [("medium", "m", -0.6)]


@pytest.mark.parametrize(
    "overrides", [Overrides(min_confidence=0.5), Overrides(policy="strict")], ids=["min", "strict"]
)
async def test_a_stricter_wish_stays_certified_and_tells_the_watch_nothing(
    overrides: Overrides,
) -> None:
    # Its answers are fewer and better than the watched policy's: they would dilute the evidence.
    these = cascade(strict=policy())
    assert (await these.ledger(overrides=overrides)).certified
    assert these.watcher == RecordingWatcher()


async def test_the_watch_is_not_told_of_the_last_tiers_answers() -> None:
    these = cascade(UNSURE, UNSURE)
    await these.ledger()
    assert these.watcher.judgements == [("small", -2.0, False), ("medium", -2.0, False)]
    assert these.watcher.acceptances == []


async def test_a_watch_in_alarm_sends_everything_to_the_last_tier() -> None:
    these = cascade(watcher=RecordingWatcher(level="escalate"), strict=policy(0.03))
    for overrides in (Overrides(), Overrides(policy="strict")):
        ledger = await these.ledger(overrides=overrides)
        assert (ledger.tier, ledger.certified) == ("giant", True)
    assert these.asked == [0, 0, 2]
    assert these.watcher.acceptances == []


async def test_a_watch_may_ask_for_the_stricter_policy() -> None:
    # A risk of 0.06 is accepted up to 0.1, and not up to 0.03; one of 0.02 is by both.
    strict = policy(0.03)
    assert (await cascade(FAIR, strict=strict).ledger()).tier == "small"
    watcher = RecordingWatcher(level="strict")
    ledger = await cascade(FAIR, strict=strict, watcher=watcher).ledger()
    assert (ledger.tier, ledger.certified) == ("medium", True)
    assert ledger.attempts[0].reason == "risk 0.06 > 0.03"
    assert watcher.acceptances == [("medium", "m", -0.2)]


async def test_a_request_may_ask_for_the_stricter_policy_where_there_is_one() -> None:
    strict = Overrides(policy="strict")
    ledger = await cascade(FAIR, strict=policy(0.03)).ledger(overrides=strict)
    assert (ledger.tier, ledger.certified) == ("medium", True)
    these = cascade()
    with pytest.raises(InvalidRequest, match="no stricter policy is certified"):
        await these.ledger(overrides=strict)
    assert these.asked == [0, 0, 0]


async def test_an_assessed_request_tells_all_that_is_known_of_every_answer() -> None:
    these = cascade(UNSURE, UNSURE)
    ledger = await these.ledger(assess=True)
    assert [one.requests[0].top_logprobs for one in these.engines] == [5, 5, 5]
    for attempt, key in zip(ledger.attempts, ("s", "m", "g"), strict=True):
        assert attempt.assessment is not None
        assert attempt.assessment.answer_key == key
        assert attempt.assessment.output_type == "short"
        assert set(attempt.assessment.features or {}) == set(FEATURE_NAMES)
    # The final tier is scored too, though its answer is taken whatever it says.
    assert ledger.attempts[-1].score == pytest.approx(-4.8)
    assert [attempt.decision for attempt in ledger.attempts][-1] is Verdict.ACCEPT


async def test_a_tier_that_is_named_alone_is_assessed_and_not_watched() -> None:
    these = cascade(LOST)
    alone = Overrides(min_tier="small", max_tier="small")
    ledger = await these.ledger(overrides=alone, assess=True)
    (attempt,) = ledger.attempts
    assert attempt.confidence == pytest.approx(0.04)
    assert attempt.assessment is not None
    assert not ledger.certified
    assert these.watcher == RecordingWatcher()


async def test_a_streamed_answer_of_the_last_tier_is_certified_when_it_has_ended() -> None:
    for changes, is_certified in (({}, True), ({"payload": asking()}, False)):
        answer = await cascade(UNSURE, UNSURE).router.answer(request(stream=True, **changes))
        assert isinstance(answer, LiveAnswer)
        async for _ in answer.chunks():
            pass
        assert answer.ledger is not None
        assert answer.ledger.certified is is_certified


async def test_fitted_models_judge_with_all_answers_so_far() -> None:
    # After small alone, wrong = sigmoid(0) = 0.5. After both: logit 0 - 4 where they agree (the
    # fifth feature, after two scores of two), so wrong = 1 / (1 + e^4) = 0.0180, else 0.5. The risk
    # is half of it.
    even = LinearModel(intercept=0.0, columns=(), slopes=(), means=())
    agreeing = LinearModel(intercept=0.0, columns=(4,), slopes=(-4.0,), means=(0.0,))
    models = RiskModels(
        states={
            (0,): StateModel(wrong=even, last_right=even),
            (0, 1): StateModel(wrong=agreeing, last_right=even),
        }
    )
    for small, tier in (("Paris", "medium"), ("Rome", "giant")):
        engines = [engine(small), engine("paris."), engine("g")]
        ledger = await Cascade(engines, default=policy(judge=models)).ledger()
        assert ledger.tier == tier
        assert ledger.attempts[0].risk == pytest.approx(0.25)
        expected = 0.0089931 if tier == "medium" else 0.25
        assert ledger.attempts[1].risk == pytest.approx(expected, abs=1e-7)
