"""Bytes to facts and refusals to bytes: no sockets, no asyncio, no clock, no policy."""
