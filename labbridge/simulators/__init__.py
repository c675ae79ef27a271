"""Simulators that speak for real: analyzers that play their profile's samples, and a hospital that keeps what it gets.

Both speak over sockets through labbridge's own links, on a reactor that the caller turns. ``vary`` makes new messages
of a sample.
"""

from labbridge.simulators.analyzer import AnalyzerSimulator
from labbridge.simulators.hospital import Hospital

__all__ = ["AnalyzerSimulator", "Hospital"]
