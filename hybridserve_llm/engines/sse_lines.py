"""Cut a byte stream into the data of server-sent events, without knowing JSON or engines.

Source: the event-stream format of the HTML standard, section 9.2.6. Deviations: only `data` is
read (vLLM sends no other field), and a byte-order mark is not expected.
"""


class SseParser:
    """Collect bytes, cut anywhere, and return the data of every event that is complete.

    Lines may end in LF, CRLF or CR. Comments and unknown fields are skipped. Several `data` lines
    of one event are joined by LF. An event that the stream's end cuts off is never returned.
    """

    __slots__ = ("_data_lines", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data_lines: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that `chunk` completes, in order; it may be empty."""
        text = self._rest + chunk
        # A CR at the very end may be half of a CRLF, so it waits for the byte that follows.
        end = len(text) - text.endswith(b"\r")
        lines = text[:end].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + text[end:]
        events: list[bytes] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data_lines.append(line[5:].removeprefix(b" "))
            elif line == b"data":
                self._data_lines.append(b"")
            elif not line and self._data_lines:
                events.append(b"\n".join(self._data_lines))
                self._data_lines.clear()
        return events
