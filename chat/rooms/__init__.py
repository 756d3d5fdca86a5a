"""The chat rooms of the sample: conversations in the database, their pages and their sockets.

The models are in ``chat.models``, and the templates in ``templates/chat/``.
"""
