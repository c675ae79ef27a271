"""The web console: what is pending, what is held and why, and everything about a specimen.

A process of its own that `labbridge run` starts and watches. It reads the store and never writes it; what a person wants
changed goes as a command over the daemon's control socket, where the person's role is looked at again.
"""
