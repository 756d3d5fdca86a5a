# `make` lists the targets with what stands behind ## in their lines.

PYTHON ?= python3
HTTP ?= 127.0.0.1:8000
# Options for pytest: make test TESTS="tests/unit -x"
TESTS ?= tests
FUZZ_SECONDS ?= 60
# Checkouts for `make peer-tests`, of github.com/django/channels, github.com/django/channels_redis and
# github.com/jrief/django-websocket-redis, one or several; and its options:
# PEER=--write keeps the results in the documentation, PEER="--only hosted -v" runs a part of it and shows what it prints
CHANNELS ?=
CHANNELS_REDIS ?=
WS4REDIS ?=
PEER ?=
# Options for the measurements: BENCH=--write keeps the results in the documentation, BENCH=--quick only tries them out
BENCH ?=

VENV := .venv

.PHONY: help run dev install install-tools other-uwsgi test check lint docs screenshots format matrix conformance fuzz peer-tests soak bench \
	bench-deliveries bench-idle bench-tables bench-async bench-pages bench-events bench-handshakes bench-leaks bench-attacks bench-drops bench-fanout bench-costs \
	bench-storm simulate python

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r target words; do \
		printf 'make %-14s %s\n' "$$target" "$$words"; done

run: install ## the whole site on http://127.0.0.1:8000 (another address: make run HTTP=127.0.0.1:9000)
	@DEMO=1 HTTP='$(HTTP)' exec $(VENV)/bin/python -m project

# Vite and its packages are installed by npm, where Node is; without it the site uses the built files of static/react.
dev: install ## for development: the site, which reloads changed code, and Vite with hot reload for the page /react/
	@$(PYTHON) tools/lint_javascript.py --install
	@HTTP='$(HTTP)' exec $(VENV)/bin/python -m project.development

install: python ## only the virtual environment of the site, .venv
	@$(PYTHON) tools/install.py $(VENV) requirements.txt

python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$(PYTHON) is older than Python 3.10: make $(MAKECMDGOALS) PYTHON=/path/to/a/newer/python3" >&2; exit 1; }

install-tools: python ## that with the tools for tests and development
	@$(PYTHON) tools/install.py $(VENV) requirements.txt requirements-test.txt requirements-dev.txt

lint: install-tools ## ruff and mypy; eslint and tsc, where Node is installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	@$(PYTHON) tools/lint_javascript.py

docs: install-tools ## the site of the documentation, with search, in var/docs: begin with var/docs/index.html
	@$(VENV)/bin/sphinx-build -q -W --keep-going -d var/doctrees docs var/docs
	@echo "var/docs/index.html"

screenshots: install-tools ## the pictures of the documentation, docs/images, by a site and a Chromium of their own
	@$(VENV)/bin/python docs/screenshots.py

format: install-tools ## what ruff mends by itself
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Both uWSGI packages are tested, the one of requirements.txt and the other one, which is built from source.
other-uwsgi: python ## the environment of the uWSGI that is built from source, .venv-uwsgi
	@$(PYTHON) tools/install.py --other-uwsgi=$(if $(filter true,$(CI)),required,optional) $(VENV)-uwsgi requirements.txt

# UWSGI_BINARIES names what could be had.
test: install-tools other-uwsgi ## every test this machine can run: a quarter of an hour on two cores (some: make test TESTS="tests/unit -x")
	@UWSGI_BINARIES="$$PWD/$(VENV)/bin/uwsgi$$(! [ -x $(VENV)-uwsgi/bin/uwsgi ] || echo ":$$PWD/$(VENV)-uwsgi/bin/uwsgi")" \
		$(VENV)/bin/python -m tests $(TESTS)

check: lint ## lint, and the unit and property tests, which need a Redis and no uWSGI: two minutes
	@$(VENV)/bin/python -m tests tests/unit tests/property

matrix: install-tools ## the unit tests on every Python that is here, with each Django that it runs (noxfile.py)
	$(VENV)/bin/nox

# `make test` runs a part of it; all of it takes half an hour.
conformance: install-tools ## every case of Autobahn|Testsuite, and independent clients (tests/conformance/README.rst)
	@AUTOBAHN=all TEST_JOBS=1 $(VENV)/bin/python -m tests tests/conformance

# In an environment of its own: atheris has wheels for some versions of Python only.
fuzz: python ## look for input that a connection does not stand, for FUZZ_SECONDS=60 (tests/README.rst)
	@$(PYTHON) tools/install.py var/venv-fuzz tests/fuzz/requirements.txt
	@FUZZ_SECONDS='$(FUZZ_SECONDS)' var/venv-fuzz/bin/python -m tests.fuzz

# CI does not run it, because the tests are in the checkouts of others, of which nothing is kept here.
peer-tests: python ## the tests of Channels and ws4redis, of CHANNELS=/a/checkout CHANNELS_REDIS=… WS4REDIS=… (tests/README.rst)
	@$(PYTHON) tools/install.py var/venv-peers requirements.txt tests/peers/requirements.txt
	@var/venv-peers/bin/python -m tests.peers $(if $(CHANNELS),--channels '$(CHANNELS)') \
		$(if $(CHANNELS_REDIS),--channels-redis '$(CHANNELS_REDIS)') $(if $(WS4REDIS),--ws4redis '$(WS4REDIS)') $(PEER)

bench: install ## what sockets cost and how fast messages go out (docs/reference/performance.rst)
	@$(VENV)/bin/python -m bench $(BENCH)

# PART is one of burst, listeners, users, doors, growth and full, or several with commas between them.
bench-deliveries: install ## the part of it about messages on their way out, or one of its parts: PART=burst, of a minute
	@$(VENV)/bin/python -m bench --deliveries $(or $(PART),all) $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH)

bench-idle: install ## the part of it about idle sockets: six minutes
	@$(VENV)/bin/python -m bench --idle $(BENCH)

bench-tables: install ## the tables and plots of deliveries once more, from the records in docs/reference/measured
	@$(VENV)/bin/python -m bench --tables

bench-async: install ## the part of it with asynchronous code, beside uvicorn and daphne
	@$(VENV)/bin/python -m bench --async $(BENCH)

bench-pages: install ## what the socket of a whole page costs, beside a socket for each of its facilities
	@$(VENV)/bin/python -m bench --pages $(or $(PAGES),1000) --rounds $(or $(ROUNDS),3) $(BENCH)

bench-events: install ## a neighbour's echo beside a group of consumers; what histories and recoveries cost
	@$(VENV)/bin/python -m bench --events --rounds $(or $(ROUNDS),5) $(BENCH)

bench-handshakes: install ## what it costs to open a socket, by who comes, beside Channels and a page of Django
	@$(VENV)/bin/python -m bench --handshakes --rounds $(or $(ROUNDS),5) $(BENCH)

bench-leaks: install ## what 50,000 connects and disconnects leave behind: six minutes
	@$(VENV)/bin/python -m bench --leaks $(BENCH)

# For contrast the attacks run on an echo on uWSGI's own WebSocket API too, which needs the uWSGI that is built from source.
bench-attacks: install ## what hostile clients can do, beside a neighbour (docs/explanation/what-a-client-can-do.rst)
	@$(PYTHON) tools/install.py --other-uwsgi=optional $(VENV)-uwsgi requirements.txt
	@$(VENV)/bin/python -m bench --attacks $(BENCH)

# Needs websocket-client, which the tests bring, and for the peers Node with npm.
bench-drops: install-tools ## networks that drop again and again: what arrives, beside others (docs/reference/drops.rst)
	@$(VENV)/bin/python -m bench --drops $(BENCH)

# STORM=3000: so many clients. Needs what bench-drops does.
bench-storm: install-tools ## thousands of clients that come back at the same time, beside others (docs/reference/performance.rst)
	@$(VENV)/bin/python -m bench --storm $(if $(STORM),--clients $(STORM)) $(BENCH)

bench-fanout: install ## what a message costs the hub, and how much of it is counting (docs/reference/metrics.rst)
	@$(VENV)/bin/python -m bench.fanout

# PART=redis, workers or check is one part of it.
bench-costs: install ## what one delivery, socket and publish cost, for the model of large sites: ten minutes
	@$(VENV)/bin/python -m bench.costs $(PART)

simulate: install ## that model: up to a million sockets (docs/explanation/scale.rst); BENCH=--write keeps the tables
	@$(VENV)/bin/python -m bench.simulation $(BENCH)

# SOAK_SECONDS and SOAK_SEED say how long, and repeat what an earlier run has done. Then slow clients in full number.
soak: install-tools ## ten minutes in which everything breaks at random, and nothing may be missing (docs/reference/soak.rst)
	@$(VENV)/bin/python -m bench.soak
	@SLOW_CLIENTS=all $(VENV)/bin/python -m pytest -q -s tests/integration/test_slow_clients.py
