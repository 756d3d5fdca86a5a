"""The sample application: pages that publish notifications and show them when they arrive.

It uses the engine as any site would: through ``wsloop.publisher``, the URLs of the sockets and the settings of
ws4redis. It must not know how the engine works.
"""
