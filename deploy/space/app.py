"""A Hugging Face Space: a page on which a class talks with Spinoza, Bergson and Kant, and its API.

It asks the backends in SNB_BACKEND_URL if that is set, else the engine in this process.
"""

import os

# Gradio reads these when it is imported: it reports nothing to anybody and keeps no list of calls.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)

import logging
import sys
from typing import Any

import uvicorn
from backend import configured
from page import web
from visitor import VISITORS

from snb.errors import SNBError
from snb.front.connection import HEAD, Connection


class Line(logging.Formatter):
    """One line; of an exception its type, without its text or traceback."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging names it so
        """See logging.Formatter."""
        return str(ei[0].__name__)


def main() -> int:
    """Serves until SIGTERM or Ctrl-C, on Gradio's own GRADIO_SERVER_NAME and GRADIO_SERVER_PORT."""
    handler = logging.StreamHandler()
    handler.setFormatter(Line("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("space").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # On Hugging Face callers come from outside the container; elsewhere, by default, from this machine.
    everywhere = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"
    host = os.environ.get("GRADIO_SERVER_NAME", everywhere)
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    try:
        backends = configured(os.environ, VISITORS)
    except (ValueError, SNBError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"http://{host}:{port}", flush=True)
    # No access log, which would hold pupils' addresses. A proxy in front says by which name it is reached.
    uvicorn.run(
        web(backends),
        host=host,
        port=port,
        http=Connection,
        ws="none",
        access_log=False,
        proxy_headers=True,
        # Hugging Face's proxy is on another machine, and nothing reaches a Space but through it.
        forwarded_allow_ips="*" if os.environ.get("SPACE_ID") else None,
        h11_max_incomplete_event_size=HEAD,
        log_config=None,
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # else threads of unfinished answers would keep the process alive
