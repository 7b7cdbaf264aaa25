"""What all scenarios share: their list, the run of one of them, addresses of the lab."""

import errno
import random

import forge
from peer import Connection, address

ROUTER_UP, UP0 = "02:00:00:00:02:01", "02:00:00:00:02:02"
ROUTER_CLIENT, CLIENT = "02:00:00:00:01:01", "02:00:00:00:01:02"
NEIGHBOR = "02:00:00:00:02:09"
BACKEND, DN0 = "02:00:00:00:03:02", "02:00:00:00:03:01"
CLIENT_HOP_LIMIT = 63
ON_PATH = ("on_path",)
DEVICE = ("on_path", "middlebox")

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


class Play:
    """One run of one scenario: the lab, the address family, and what was promised."""

    def __init__(self, lab, name, family):
        self.lab, self.name, self.family, self.promises = lab, name, family, []

    def expect(self, source, destination, verdict, *causes, story="", hop_limit=None,
               other_leg=None):
        """One record with this verdict; where it names the proxy's other leg, it is that one."""
        self.promises.append({
            "scenario": self.name + ("_v6" if self.family == 6 else ""),
            "story": story,
            "source": source[0], "source_port": source[1],
            "destination": destination[0], "destination_port": destination[1],
            "expect_verdict": verdict, "expect_cause": list(causes),
            **({"hop_limit": hop_limit} if hop_limit else {}),
            **({"other_leg": [*other_leg[0], *other_leg[1]]} if other_leg else {}),
        })

    def connection(self, *args, **options):
        return Connection(self.lab, self.family, *args, **options)

    def refused(self, host, there, source=None):
        """A call from `host`, by the address of `source`, to an end that refuses it; the caller's end."""
        with self.lab.socket(host, self.family) as sock:
            sock.bind((address(source or host, self.family), 0))
            here = sock.getsockname()[:2]
            assert sock.connect_ex(there) == errno.ECONNREFUSED
        return here

    def tap(self, namespace, interface):
        return forge.Tap(self.lab, namespace, interface)


def free_port():
    return random.randrange(20000, 30000)
