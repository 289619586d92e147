"""How our processes call each other: one HTTP/2 channel per target, no client-side retries."""

import grpc

_OPTIONS = (
    # A retry inside the library could send an order twice; who may repeat a call repeats it openly.
    ("grpc.enable_retries", 0),
    # Find a dead peer within seconds, also between calls.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Come back quickly after a restart of the peer.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Not a back-off in truth: how long one attempt to connect may take, on a busy machine too.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


def open_channel(target: str) -> grpc.aio.Channel:
    """Open a channel to ``host:port``. The caller closes it."""
    return grpc.aio.insecure_channel(target, options=_OPTIONS)
