"""The page ``/ops/``, on which staff see the sockets of the site and act on them.

Off unless a site has ``path("ops/", include("wsloop.ops.urls"))``. The page is fed over a socket of its own
(``consumer``); what it asks for, and what it does, goes to ``views``. This package must not know the sockets of the
operating system.
"""
