"""Servers, networks and clients that the tests and the measurements share; the package must not know either of them."""
