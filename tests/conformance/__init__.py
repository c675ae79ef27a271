"""What the standards demand, row by row: ``rows.csv`` has the statements, each test cites the rows that it proves.

A citation stands in a test function, as a comment or in its docstring: ``# conformance: A13, C02``. ``departures.csv``
says of a row why labbridge does otherwise, or why the row is not proven yet.
"""
