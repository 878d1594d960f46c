"""A packet lab: one host, its neighbours, real packets, and nothing outside of it.

`with Lab(Neighbour("device", host_if="dev0", v4="10.77.1.0/24", v6="fd77:1::/64")) as lab:`
makes anonymous network namespaces joined by veth pairs. The host's is `lab.host`; its firewall
is put there by whoever tests it. Then `lab.probe("device", "tcp", 443, 6)` tells what happened
to one new flow. Root (CAP_SYS_ADMIN and CAP_NET_ADMIN) is needed: without it every way in
raises `LabUnavailable`.

What to know when writing rules for it:

- ARP and neighbour discovery are done anew for each probe. A ruleset that lets no
  nd-neighbor-solicit and nd-neighbor-advert through drops everything of IPv6, as it would
  anywhere.
- A verdict is about the whole exchange: TCP is accepted when the handshake ended, so an answer
  that the output chain drops is a drop too.
- A host that rejects its own flow tells itself over `lo`, through both of its chains.
- `matrix` and `Lab.run` send up to 32 first packets at once, in order: a rate limit sees them so.
- Sysctls are set here, not taken from outside: no forwarding, no reverse path filter, no limit of
  ICMP. Multicast listener reports (ICMPv6 143) come unasked, so do not count all of ICMPv6.
"""

from tests.firewall.lab.errors import LabError, LabUnavailable, PacketLost
from tests.firewall.lab.lab import Lab, matrix
from tests.firewall.lab.load import Flood, Flow, Hammer
from tests.firewall.lab.netns import Namespace
from tests.firewall.lab.packets import Family, Proto
from tests.firewall.lab.plan import Neighbour
from tests.firewall.lab.probing import Case, Verdict

__all__ = [
    "Case",
    "Family",
    "Flood",
    "Flow",
    "Hammer",
    "Lab",
    "LabError",
    "LabUnavailable",
    "Namespace",
    "Neighbour",
    "PacketLost",
    "Proto",
    "Verdict",
    "matrix",
]
