"""python -m tests.impatient runs snb.front with shorter waits: for a silent server, and before it ends."""

import sys

from snb.front import __main__ as front
from snb.front import cog_server

cog_server.SILENCE, cog_server.HUNG, front.SHUTDOWN = 4.0, 10.0, 2.0

if __name__ == "__main__":
    sys.exit(front.main())
