"""Runs every benchmark, each in a process of its own: ``python -m bench``, or ``python -m bench NAME…``."""

import pkgutil
import subprocess
import sys

import bench


def main() -> int:
    """Run the benchmarks that are named, or all; returns the number of those that failed."""
    known = sorted(module.name for module in pkgutil.iter_modules(bench.__path__) if not module.ispkg)
    chosen = sys.argv[1:] or [name for name in known if name != "__main__"]
    failed = 0
    for name in chosen:
        if name not in known:
            sys.exit(f"no benchmark {name!r}; there are {', '.join(known)}")
        print(f"== {name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode != 0  # noqa: S603 - our own modules
    return failed


if __name__ == "__main__":
    sys.exit(main())
