"""The ways to a worker of wsloop: alone, behind uWSGI's router or nginx, and in gunicorn.

It must not know what is measured.
"""

from __future__ import annotations

from bench.lineup import Contender, Wsloop
from bench.servers import Server, Worker, cpu_time, family, site_environment
from testbed.nginx import PROXY_PASS, SERVER, UWSGI_PASS, start_servers
from testbed.processes import free_port, wait_until
from testbed.python_servers import command as python_server
from testbed.uwsgi import as_in_uwsgi_ini


class Router(Wsloop):
    """The worker behind uWSGI's own router, a process of its own."""

    name = "--http"

    def start(self) -> Server:
        behind = f"127.0.0.1:{free_port()}"
        options = ["--http", f"127.0.0.1:{self.port}", "--http-websockets", "--socket", behind, "--http-to", behind]
        options += ["--disable-logging", *as_in_uwsgi_ini("http-timeout", "http-buffer-size")]
        return Worker(self.ground.directory, self.ground.redis.port, options=options, env=self.env)


class Nginx(Wsloop):
    """The worker behind nginx, over HTTP."""

    name, option, location = "nginx, proxy_pass", "--http-socket", PROXY_PASS

    def start(self) -> Server:
        unix = self.ground.directory / f"{self.port}.sock"
        options = ["--disable-logging", self.option, str(unix)]
        worker = Worker(self.ground.directory, self.ground.redis.port, options=options, env=self.env)
        directory = self.ground.directory / f"nginx-{self.port}"
        directory.mkdir()
        location = self.location.format(socket=unix) + "proxy_read_timeout 1h; uwsgi_read_timeout 1h;"
        self.nginx = start_servers(directory, SERVER.format(listen=self.port, location=location))
        wait_until(lambda: self.nginx.listens(self.port), what="nginx")
        return worker

    def cpu(self) -> float:
        return super().cpu() + sum(map(cpu_time, family(self.nginx.pid)))

    def stop(self) -> None:
        self.nginx.stop()
        super().stop()


class NginxUwsgi(Nginx):
    """The worker behind nginx, over uWSGI's own protocol."""

    name, option, location = "nginx, uwsgi_pass", "--socket", UWSGI_PASS


class Gunicorn(Wsloop):
    """A worker of gunicorn, and its arbiter."""

    name = "gunicorn"

    def start(self) -> Server:
        options = ["--module", "bench.wsgi", "--timeout", "0"]
        env = site_environment(self.ground.directory, self.ground.redis.port, heartbeat=False) | self.env
        log = self.ground.directory / f"{self.port}.log"
        return Server(python_server("gunicorn", f"127.0.0.1:{self.port}", 1, 100, options), log, env, self.port)


DOORS: tuple[type[Contender], ...] = Wsloop, Router, Nginx, NginxUwsgi, Gunicorn
