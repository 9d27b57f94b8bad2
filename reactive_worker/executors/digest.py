"""A real agent that needs no key: an extractive digest of a text, streamed sentence by sentence.

The demo's executor, and a model of a well-behaved one: progress, an artifact in chunks, a second artifact
with data, a closing message, and cooperation when it is cancelled.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from a2a.helpers import new_data_part, new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

_COMMON = (
    "a about above after again all also am an and any are as at be because been before being below "
    "between both but by can cannot could did do does doing done down during each even ever every few for "
    "from further get gets had has have having he her here hers him his how i if in into is it its itself "
    "just let like made make makes many may me might more most much must my no nor not now of off on once "
    "one only or other our out over own per same she should so some such than that the their them then "
    "there these they this those through to too two under until up upon us use used uses using very via "
    "was way we were what when where which while who whom why will with without would you your yours"
)
_STOP_WORDS = frozenset(_COMMON.split())
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[^\W\d_a-z])|\n{2,}")
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
#: How much a sentence's similarity to those already chosen counts against it.
_REPETITION = 0.7
#: Telling words below and above which a sentence is too short or too long to be quoted.
_SENTENCE_SHORT, _SENTENCE_LONG = 8, 18


@dataclass(frozen=True, slots=True)
class Digest:
    """What `digest` found in a text."""

    #: The most telling sentences, in the order of the text.
    sentences: tuple[str, ...]
    #: ``(keyword, occurrences)``, most telling first.
    keywords: tuple[tuple[str, int], ...]
    words: int
    sentences_read: int


def plain_text(markdown: str) -> str:
    """The prose of a Markdown text: no code, tables, headings, link targets or emphasis."""
    text = re.sub(r"^(```|~~~).*?^\1[^\n]*$", "\n", markdown, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^\s*(\|.*|#+ .*|[-=*]{3,}\s*)$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^\s*(?:[-*+]|\d+\.)\s+", "\n\n", text, flags=re.MULTILINE)
    return re.sub(r"[*`]+", "", text)


def split_sentences(text: str) -> list[str]:
    """Sentences and list items, each on one line; fragments of fewer than four words are dropped."""
    parts = (" ".join(part.split()) for part in _SENTENCE_END.split(text) if part)
    return [part for part in parts if len(part.split()) >= 4]


def digest(text: str, sentences: int = 3, keywords: int = 8) -> Digest:
    """Choose the sentences and words that say most about a text.

    A sentence counts by how frequent its words are in the whole text; what it repeats of sentences already
    chosen counts against it, so that the digest covers the text instead of saying one thing three times.

    Parameters
    ----------
    sentences, keywords:
        How many to choose at most.

    Example
    -------
    >>> digest("Rain fell on the old town. Nobody saw the rain fall on the town. Cats slept.").keywords[0]
    ('rain', 2)
    """
    prose = plain_text(text)
    found = split_sentences(prose)
    bags = [[word for word in _words(sentence) if _matters(word)] for sentence in found]
    frequency = Counter(word for bag in bags for word in bag) or Counter(
        word for word in _words(prose) if _matters(word)
    )
    chosen = _choose(bags, frequency, sentences)
    # Long words say more than short ones of the same frequency; ties by first appearance (Counter keeps it).
    ranked = sorted(frequency.items(), key=lambda pair: -pair[1] * len(pair[0]) ** 0.5)
    return Digest(
        tuple(found[index] for index in sorted(chosen)),
        tuple(ranked[:keywords]),
        sum(1 for _ in _words(prose)),
        len(found),
    )


def _words(text: str) -> list[str]:
    return [word.lower().strip("'’-") for word in _WORD.findall(text)]


def _matters(word: str) -> bool:
    return len(word) > 2 and word not in _STOP_WORDS


def _choose(bags: Sequence[Sequence[str]], frequency: Counter[str], wanted: int) -> list[int]:
    sets = [set(bag) for bag in bags]
    scores = [
        # Density, so that long sentences do not win by length; the floor keeps short ones from winning by it.
        sum(frequency[word] for word in words) / max(_SENTENCE_SHORT, len(bags[index]) ** 2 / _SENTENCE_LONG)
        for index, words in enumerate(sets)
    ]
    # Marginal relevance over the best hundred only: the cost stays linear in the text's length.
    rest = sorted((index for index in range(len(bags)) if sets[index]), key=lambda i: -scores[i])[:100]
    chosen: list[int] = []
    while rest and len(chosen) < wanted:

        def gain(index: int) -> float:
            overlap = max((_likeness(sets[index], sets[other]) for other in chosen), default=0.0)
            return scores[index] * (1 - _REPETITION * overlap)

        best = max(rest, key=gain)
        rest.remove(best)
        chosen.append(best)
    return chosen


def _likeness(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


class DigestExecutor(AgentExecutor):
    """Digests the prompt's text. `input_data` may hold ``sentences`` and ``keywords``: how many to choose.

    Parameters
    ----------
    pace:
        Seconds between two chunks; the demo uses it so that a person can watch.
    """

    def __init__(self, pace: float = 0.0) -> None:
        self._pace = pace

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Read, rank, and stream the digest."""
        task = context.current_task
        if task is None:
            if context.message is None:
                raise ValueError("a digest needs a text")
            task = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        wanted: dict[str, Any] = context.call_context.state.get("input_data") or {}
        text = context.get_user_input()
        # A book takes a second of pure Python: not on the loop that keeps every other task going.
        found = await asyncio.to_thread(
            digest, text, int(wanted.get("sentences", 3)), int(wanted.get("keywords", 8))
        )
        await updater.start_work(
            updater.new_agent_message(
                [new_text_part(f"read {found.words} words, {found.sentences_read} sentence(s)")]
            )
        )
        last = len(found.sentences) - 1
        for index, sentence in enumerate(found.sentences):
            await asyncio.sleep(self._pace)
            await updater.add_artifact(
                [new_text_part(sentence if index == last else f"{sentence}\n")],
                artifact_id="digest",
                name="digest",
                append=index > 0,
                last_chunk=index == last,
            )
        await updater.add_artifact(
            [new_data_part({"keywords": [word for word, _ in found.keywords]})],
            artifact_id="keywords",
            name="keywords",
        )
        top = ", ".join(word for word, _ in found.keywords[:3]) or "nothing"
        await updater.complete(updater.new_agent_message([new_text_part(f"mostly about {top}")]))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Say that it was cancelled; `execute` is ended by the worker."""
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()
