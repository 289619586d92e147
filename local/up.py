"""``make up``: sets up and runs the whole system in the foreground until Ctrl-C or SIGTERM."""

import signal
import sys

if __name__ == "__main__":
    # The imports take a while, and nothing runs yet: a stop among them is a stop like any other.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))

    from local.foreground import main

    sys.exit(main())
