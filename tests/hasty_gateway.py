"""The program, with a gateway that has little patience and room for few: so that tests of its limits end soon."""

from __future__ import annotations

from provisioning.__main__ import main
from provisioning.gateway import connections, refusals, server, streams

server.HEADER_SECONDS = 0.5
server.BODY_SECONDS = 0.5
server.SEND_SECONDS = 0.5
server.LINGER_SECONDS = 0.2
connections.MOST = 80
streams.WRITE_SECONDS = 0.5
refusals.MOST = 10_000  # the tests of a module are one caller

if __name__ == "__main__":
    main()
