"""What ``manage.py wsdoctor`` looks at: Redis, the options of the server, the machine, and the way from outside.

Each module yields findings, which say what to change. This package must not know gevent, nor the sockets of workers.
"""
