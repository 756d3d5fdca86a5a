; {{ site.name }} on uWSGI, behind nginx or another proxy that ends TLS: `uwsgi uwsgi.ini`
; From the environment: LISTEN (address, default 127.0.0.1:{{ site.port }}), PROCESSES (default 2), and what the settings read.
[uwsgi]
chdir = %d
module = {{ site.module }}:{{ site.attribute }}
; A mistyped option is an error, not silence.
strict = true

; HTTP, for a proxy. Without uWSGI's own router, so that a stop says goodbye to every socket.
if-env = LISTEN
http-socket = $(LISTEN)
endif =
if-not-env = LISTEN
http-socket = 127.0.0.1:{{ site.port }}
endif =

; Reaps and restarts workers, and makes reloads possible.
master = true
if-env = PROCESSES
processes = $(PROCESSES)
endif =
if-not-env = PROCESSES
processes = 2
endif =
; Requests that one worker answers at the same time. WebSockets do not count: they leave uWSGI after the handshake. But when a
; thousand clients come back at once, so many of their handshakes can wait for their turn, and need not be refused.
gevent = 500
; Each worker loads the site itself: needed to load new code with new workers, and no event loop is forked.
lazy-apps = true
single-interpreter = true
enable-threads = true

; `systemctl reload`: all workers end at the same time, and new ones load the new code. The port stays open, so pages wait
; meanwhile, and a client is disconnected once. systemd says which directory is for this.
if-env = RUNTIME_DIRECTORY
touch-workers-reload = $(RUNTIME_DIRECTORY)/reload
endif =
; Seconds that a worker which is being replaced may take to finish its requests and to say goodbye to its sockets.
worker-reload-mercy = {{ site.mercy }}
; SIGTERM ends a server that still starts: uWSGI would ignore it until its master is up.
hook-asap = unix_signal:15 _exit
; A worker that is told to end (SIGINT) or to reload (SIGHUP) while it still loads the site just ends.
hook-post-fork = unix_signal:1 _exit
hook-post-fork = unix_signal:2 _exit
; No pause after crashes: a SIGTERM in it would leave a worker behind.
forkbomb-delay = 0
; SIGTERM ends the server; uWSGI's default is to reload it.
die-on-term = true
no-orphans = true
vacuum = true
; No harakiri and no max-requests: they end a worker, with all of its sockets, for one slow request or after some number.

; Bytes of a request's headers: large cookies and the query strings of many subscriptions need more than the default 4096.
buffer-size = 16384
; Connections waiting to be accepted: a restart brings all clients back at once, and whom the kernel turns away, a page among
; them, tries again after 1, 3, 7 … seconds. uWSGI does not start with more than net.core.somaxconn, 128 before Linux 5.4.
listen = 1024
{% if static %}

; Static files, where no nginx serves them (in a container): after `manage.py collectstatic`.
static-map = {{ static }}={{ static_root }}
{% endif %}

; The proxy logs requests, without query strings, which may hold secrets.
disable-logging = true
ignore-write-errors = true
