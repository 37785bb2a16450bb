"""The whole answer that a stream's events tell."""

from __future__ import annotations

from edgeq.llm.message import DELTA, FAILURE, FINISH, IMAGE, PART_START, START, THINKING, TOOL_USE, Answer, Event, Part


def answer_of(events: list[Event]) -> Answer:
    """Put together what came piece by piece.

    Raises: ValueError if it failed, with what is said of it.
    """
    answer = Answer("", "", [])
    for event in events:
        kind = event.kind
        if kind == DELTA:
            part = answer.parts[-1]
            if part.kind == TOOL_USE:
                part.arguments += event.text
            elif part.kind == IMAGE:
                part.data = event.text
            else:
                part.text += event.text
                if part.kind == THINKING and event.id:
                    part.data = event.id
        elif kind == PART_START:
            if event.part == IMAGE:
                answer.parts.append(Part(IMAGE, media_type=event.name))
            else:
                answer.parts.append(Part(event.part, id=event.id, name=event.name))
        elif kind == START:
            answer.id = event.id
            answer.model = event.model
            answer.service_tier = event.name
            if event.usage is not None:
                answer.usage = event.usage
        elif kind == FINISH:
            answer.stop = event.stop
            answer.stop_sequence = event.stop_sequence
            if event.usage is not None:
                answer.usage = event.usage
        elif kind == FAILURE:
            raise ValueError(event.text)
    return answer
