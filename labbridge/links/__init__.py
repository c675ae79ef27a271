"""links move bytes: thin Twisted adapters between sockets and the machines of ``wire``.

``stream`` has one connection, ``tcp`` the listeners and the connectors that make connections. Nothing here knows what
a message says, and nothing is decided here: every event but ``Write`` goes to the handler.
"""
