"""`specialsam serve`: from its options to a server that listens, until it is told to stop."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from specialsam.apps.web.app import create_app
from specialsam.apps.web.catalogue import Catalogue, gains_of
from specialsam.apps.web.corrections import Corrections
from specialsam.apps.web.desk import Desk
from specialsam.apps.web.guards import Access
from specialsam.apps.web.limits import Limits
from specialsam.apps.web.page_api import main_gain
from specialsam.apps.web.state import Server
from specialsam.apps.web.tuning import Recipe, Tuner
from specialsam.apps.web.uploads import Visits
from specialsam.core.console import say
from specialsam.core.errors import UsageError

TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
GRACE = 3
"""Seconds at the end in which answers under way may still come to theirs."""


@dataclass(frozen=True)
class ServeOrder:
    """What is served: models as `load_model` takes them, the folders of runs, corrections and an inspection."""

    model: str = "nano"
    specialist: Path | None = None
    runs: Path = Path("runs")
    data: Path = Path("corrections")
    line: Path | None = None
    tune: tuple[str, ...] = ()
    device: str = "cpu"
    trust_base: bool = False


@dataclass(frozen=True)
class Listening:
    """Where it listens and who may ask; anything but this machine's own address demands a token."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    names: tuple[str, ...] = ()

    def access(self) -> Access:
        """Who may ask; a token is made up where one is needed and none was given. UsageError for a weak one."""
        token = self.token or ("" if _own(self.host) else secrets.token_urlsafe(24))
        if token and not TOKEN.fullmatch(token):
            raise UsageError("expected a --token of 16 to 200 letters, digits, - and _, got another")
        names = {name.lower() for name in self.names}
        return Access(token, frozenset(names | ({self.host.lower()} if not _number(self.host) else set())))

    def opened(self) -> socket.socket:
        """The socket, bound; UsageError where it cannot be."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # named TCP, or asyncio leaves Nagle's algorithm on and each answer waits 40 ms for an acknowledgement
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self.host, self.port))
        except (OSError, UnicodeError) as error:
            listening.close()
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"expected a free port and an address of this machine, got {self.host}:{self.port} ({why}); "
                "choose another --port or --host"
            ) from error
        return listening


@contextmanager
def opened(order: ServeOrder, limits: Limits) -> Iterator[Server]:
    """A server with its models loaded; at its end the process, the sessions and a run under way are ended."""
    root = Path(tempfile.mkdtemp(prefix="specialsam-serve-"))
    desk = Desk(limits, root, order.device, order.trust_base)
    visits = Visits(root, limits, desk.forgotten.append)
    recipe = Recipe(order.model, order.runs, order.tune, order.device, order.trust_base)
    tuner = Tuner(recipe)
    try:
        corrections = Corrections(order.data)
        places = [order.model, *([str(order.specialist)] if order.specialist else [])]
        catalogue = Catalogue()
        for place, told in zip(places, desk.start(places), strict=True):
            entry = catalogue.add(place, told, main_gain(gains_of(Path(place).parent / "comparison.csv")))
            catalogue.use(entry.id)
        yield Server(limits, desk, visits, catalogue, corrections, tuner, order.runs, order.line)
    finally:
        tuner.stop(wait=GRACE)
        desk.close()
        visits.close()


class _Uvicorn(uvicorn.Server):
    """Ends the live pictures before it waits for those who watch them."""

    served: Server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.served.ending.set()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal ends the server in good order, a second one at once; it is an end and no fault."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def serve(order: ServeOrder, listening: Listening, limits: Limits) -> None:
    """Serve until a signal comes. UsageError for a port that is taken, ModelError for a model that cannot be loaded."""
    access = listening.access()
    with listening.opened() as at:
        port = int(at.getsockname()[1])
        say("loading the models")
        with opened(order, limits) as server:
            config = uvicorn.Config(
                create_app(server, access),
                log_level="critical",
                access_log=False,
                server_header=False,
                date_header=False,
                ws="none",
                timeout_keep_alive=10,
                timeout_graceful_shutdown=GRACE,
                h11_max_incomplete_event_size=32_768,
            )
            running = _Uvicorn(config)
            running.served = server
            host = "127.0.0.1" if listening.host in ("0.0.0.0", "::") else listening.host
            shown = f"[{host}]" if ":" in host else host
            at.listen(128)  # whoever reads the next line may ask at once
            say(f"serving http://{shown}:{port}/{f'?token={access.token}' if access.token else ''} (Ctrl-C ends it)")
            running.run(sockets=[at])
    say("ended; what was uploaded is deleted")


def _number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _own(host: str) -> bool:
    """Whether an address is this machine's own, which nobody else reaches."""
    return host == "localhost" or (_number(host) and ipaddress.ip_address(host).is_loopback)
