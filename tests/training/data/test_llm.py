"""Chat models as a generator: judged twice, paid once, paced, estimated before anything is asked."""

import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.training.data.rows import read
from training.data.chat_models import Call, CallFailed, Clock, Kept, Pace
from training.data.llm import Models, Plan, combinations, estimate
from training.data.rows import BadInput, read_rows
from training.data.synthesize import main

PLAN = """
writer: w
answerers: [good, bad]
judges: [j1, j2]
requests: 6
languages: [zh]
per_minute: 100000
parallel: 3
"""


class ScriptedChat:
    """Answers by role. `strange` judges say it; models in `broken` fail; every call is noted."""

    def __init__(self, *, second: str = "", broken: str = "") -> None:
        self.calls: list[Call] = []
        self.broken = broken
        self._second = second
        self._lock = threading.Lock()

    def ask(self, call: Call) -> str:
        with self._lock:
            self.calls.append(call)
        if call.model == self.broken:
            raise CallFailed(f"{call.model}: RateLimitError: busy")
        match call.model:
            case "w":
                return f"请求：{call.user}"
            case "good" | "bad":
                return f"{call.model} answer to: {call.user}"
            case "j2" if self._second:
                return self._second
            case _:
                judged = call.user.split("\nAssistant: ")[-1]
                harmful = "bad answer" in judged or (
                    "wants to do something harmful" in judged and "answer" not in judged
                )
                return "Unsafe." if harmful else "safe"

    def price(self, call: Call) -> float | None:
        return None if call.model == "j2" else 0.01


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "plan.yaml").write_text(PLAN, encoding="utf-8")
    return tmp_path / "plan.yaml"


def command(plan: Path, *more: str) -> list[str]:
    return ["--plan", str(plan), "--out", str(plan.parent / "out.jsonl"), *more]


def test_requests_and_every_models_answers_become_rows_labelled_by_the_judges(plan: Path) -> None:
    assert main(command(plan, "--go"), ScriptedChat()) == 0
    rows = read_rows(plan.parent / "out.jsonl")
    assert Counter((row.direction, row.unsafe) for row in rows) == {
        ("prompt", True): 3,
        ("prompt", False): 3,
        ("response", True): 6,
        ("response", False): 6,
    }
    assert all(bool(row.categories) is row.unsafe for row in rows)
    assert {row.source for row in rows} == {"syn_llm"}


def test_without_go_only_the_estimate_is_printed_and_nobody_is_asked(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = ScriptedChat()
    assert main(command(plan), chat) == 0
    shown = capsys.readouterr().out
    assert "w: 6 calls, at most $0.06" in shown
    assert "j1: 18 calls, at most $0.18" in shown
    assert "j2: 18 calls, price not known" in shown
    assert not chat.calls
    assert not (plan.parent / "out.jsonl").exists()


def test_the_estimate_is_the_number_of_calls_that_a_run_makes(plan: Path) -> None:
    chat = ScriptedChat()
    models = Models.of(Plan.read(plan), chat, plan.parent / "k.jsonl")
    expected = estimate(models, chat).calls
    list(models.texts())
    assert Counter(call.model for call in chat.calls) == expected
    assert estimate(models, chat).calls == {}


@pytest.mark.parametrize(("says", "reason"), [("unsafe", "judges disagree"), ("It depends", "a judge said neither")])
def test_a_label_that_the_judges_dispute_drops_the_row(
    plan: Path, capsys: pytest.CaptureFixture[str], says: str, reason: str
) -> None:
    assert main(command(plan, "--go"), ScriptedChat(second=says)) == 0
    rows = read(plan.parent / "out.jsonl")
    assert all(row["label"] == "unsafe" for row in rows)
    assert len(rows) == (9 if says == "unsafe" else 0)
    assert f"left out, {reason}: {18 - len(rows)}" in capsys.readouterr().out


def test_a_model_that_fails_costs_its_own_rows_and_a_later_run_asks_only_what_is_missing(plan: Path) -> None:
    first = ScriptedChat(broken="bad")
    assert main(command(plan, "--go"), first) == 0
    assert len(read(plan.parent / "out.jsonl")) == 12
    second = ScriptedChat()
    assert main(command(plan, "--go"), second) == 0
    assert Counter(call.model for call in second.calls) == {"bad": 6, "j1": 6, "j2": 6}
    together = read(plan.parent / "out.jsonl")
    fresh = plan.parent / "fresh"
    fresh.mkdir()
    assert main(["--plan", str(plan), "--out", str(fresh / "o.jsonl"), "--go"], ScriptedChat()) == 0
    assert together == read(fresh / "o.jsonl")


def test_an_answer_that_a_crash_cut_off_is_asked_again(tmp_path: Path) -> None:
    path, chat = tmp_path / "k.jsonl", ScriptedChat()
    calls = [Call("good", "s", text, 5) for text in ("a", "b")]
    kept = Kept(path, chat, Pace(1e6, Clock()))
    said = [kept.ask(call) for call in calls]
    path.write_bytes(path.read_bytes()[:-4])
    again = Kept(path, chat, Pace(1e6, Clock()))
    assert [call in again for call in calls] == [True, False]
    assert [again.ask(call) for call in calls] == said
    assert len(chat.calls) == 3


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "k.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(BadInput, match="not a file of kept answers"):
        Kept(tmp_path / "k.jsonl", ScriptedChat(), Pace(1, Clock()))


def test_calls_are_spread_evenly_over_the_minute() -> None:
    now, waited = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    pace = Pace(30, Clock(lambda: now[0], sleep))
    for _ in range(3):
        pace.wait()
    now[0] += 60
    pace.wait()
    assert waited == [2.0, 2.0]


def test_combinations_cover_behaviours_evenly_and_none_of_the_second_dev_split(plan: Path) -> None:
    drawn = list(combinations(Plan.read(plan)))
    assert [one.element.unsafe for one in drawn] == [True, False] * 3
    assert drawn == list(combinations(Plan.read(plan)))
    assert all(one.region and one.event and one.task for one in drawn)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("judges: [j1]", "judges"), ("speed: 3", "speed"), ("languages: [fr]", "fr"), ("requests: 0", "requests")],
)
def test_a_mistake_in_the_plan_is_named(
    plan: Path, capsys: pytest.CaptureFixture[str], line: str, complaint: str
) -> None:
    key = line.split(":")[0]
    kept = [known for known in PLAN.strip().splitlines() if not known.startswith(f"{key}:")]
    plan.write_text("\n".join([*kept, line]), encoding="utf-8")
    assert main(command(plan), ScriptedChat()) == 2
    assert complaint in capsys.readouterr().err
