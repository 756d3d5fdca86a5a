"""The measurements of ``make bench``: what the engine costs and how fast it is, beside peers on the same machine."""
