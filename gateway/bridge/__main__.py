"""The WebSocket bridge as a process: ``python -m gateway.bridge``, told by ``BRIDGE_*``."""

import asyncio

import uvloop

from gateway.bridge.app import serve
from gateway.bridge.settings import BridgeSettings
from services.runtime.cores import leave_no_core
from services.runtime.logging import configure_logging

if __name__ == "__main__":
    settings = BridgeSettings()
    leave_no_core()
    configure_logging("bridge", settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))
