"""Azure's filter results put into answers made of choices, whole and streamed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.dialects.choices.choice_stream import STAMP
from gateway.dialects.dialect import Channel, Event, Json
from gateway.dialects.fields import only_names
from guard_runtime.conversation import Part


def annotated(answer: Json, prompt: Json, choices: Mapping[int, Json]) -> dict[str, Any]:
    """`answer` with the results of its prompt, and of those choices (by their place in the list) that were judged."""
    choices_with_results = [
        {**choice, "content_filter_results": choices[i]} if i in choices else choice
        for i, choice in enumerate(answer.get("choices") or ())
    ]
    return {**answer, "prompt_filter_results": _of_prompt(prompt), "choices": choices_with_results}


def choice_of(channel: Channel) -> int:
    """The choice that a text of a stream belongs to. Text beside the choices belongs to the first of them."""
    first = channel[0]
    return first if isinstance(first, int) else 0


def by_choice(parts: Sequence[Part]) -> Mapping[int, Sequence[Part]]:
    """The parts that are judged together: each choice is an answer of its own, streamed or not."""
    groups: dict[int, list[Part]] = {}
    for part in parts:
        groups.setdefault(choice_of(part.path), []).append(part)
    return groups


class Annotator:
    """Adds the results to the events of one stream: the prompt's first, in a chunk without choices, then those of each
    choice in the chunk with its finish reason (`results`; None where nothing was checked).

    Every choice keeps its `delta`: SDK helpers fail without one."""

    def __init__(self, prompt: Json, results: Callable[[int], Json | None]) -> None:
        self._prompt = prompt
        self._results = results
        self._opened = False

    def __call__(self, events: Sequence[Event]) -> list[Event]:
        leaving: list[Event] = []
        for event in events:
            if event.data is None or not isinstance(event.data.get("choices"), list):
                leaving.append(event)
                continue
            if not self._opened:
                self._opened = True
                stamp = {key: value for key, value in event.data.items() if key in STAMP and only_names(value)}
                leaving.append(Event({**stamp, "choices": [], "prompt_filter_results": _of_prompt(self._prompt)}))
            leaving.append(Event({**event.data, "choices": [*map(self._choice, event.data["choices"])]}, event.name))
        return leaving

    def _choice(self, choice: Json) -> Json:
        results = self._results(choice["index"]) if choice.get("finish_reason") is not None else None
        return choice if results is None else {**choice, "content_filter_results": results}


def _of_prompt(results: Json) -> list[Json]:
    return [{"prompt_index": 0, "content_filter_results": results}]
