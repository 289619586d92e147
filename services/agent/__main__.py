"""Runs the agent service: ``python -m services.agent``."""

from services.agent.bootstrap import agent
from services.agent.settings import AgentSettings
from services.runtime.server import run

if __name__ == "__main__":
    settings = AgentSettings()
    run("agent", settings, lambda: agent(settings))
