"""The sample application: pages that publish notifications and show them when they arrive.

It uses wsloop as any site would: through ``wsloop.publisher``, consumers, the URLs of the sockets and the settings. It
must not know how wsloop works.
"""
