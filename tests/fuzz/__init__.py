"""Every reader of labbridge under a fuzzer: `make fuzz` runs them one after the other under atheris.

``targets`` says what each reader may do with any bytes at all, ``engine`` runs one of them under the fuzzer, and the
package itself, run as a program, all of them.
"""
