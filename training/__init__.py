"""How the shipped models are made and judged: ``make train`` and ``make evaluate``. Never imported by a service."""
