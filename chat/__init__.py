"""The sample application: pages that publish notifications, chat rooms and other consumers, and a socket inspector.

It uses wsloop as any site would: publishers in views, consumers and the channel layer, presence, the URLs of the
sockets and the settings. It must not know how wsloop works.
"""
