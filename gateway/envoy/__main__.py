"""Writes Envoy's configuration: ``python -m gateway.envoy --out FILE``, told by ``GATEWAY_*``."""

import argparse
from pathlib import Path

from gateway.envoy.config import render
from gateway.envoy.settings import GatewaySettings

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m gateway.envoy", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.parse_args().out.write_text(render(GatewaySettings()), encoding="utf-8")
