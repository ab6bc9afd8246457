"""The port itself: what an accepted socket is, and who is told apart by the first byte."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sqlml.wire.front import Front


async def met(host: str, first: bytes) -> tuple[bytes, int]:
    """What the server heard first, and whether it sends small answers at once."""
    heard: asyncio.Future[tuple[bytes, int]] = asyncio.get_running_loop().create_future()

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
        heard.set_result((data, writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))

    front = Front(welcome, None)
    front.start(host, 0)
    try:
        reader, writer = await asyncio.open_connection(host, front.port)
        writer.write(first)
        found = await asyncio.wait_for(heard, 30)
        assert await reader.read() == b""  # it hangs up when it is done
        writer.close()
        await writer.wait_closed()
        return found
    finally:
        front.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("first", [b"POST /sql HTTP/1.1\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f", b"\x16\x03\x01"])
def test_the_first_bytes_come_whole_and_answers_go_at_once(host: str, first: bytes) -> None:
    data, at_once = asyncio.run(met(host, first))
    assert data == first
    assert at_once


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        front = Front(lambda *_: asyncio.sleep(0), None)
        with pytest.raises(OSError, match="already in use"):
            front.start("127.0.0.1", taken.getsockname()[1])
