"""The chat rooms of the sample: conversations kept in the database, their pages and their sockets.

The models are those of the application (``chat.models``), and the templates are in ``templates/chat/``.
"""
