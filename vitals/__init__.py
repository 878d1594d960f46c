"""The shared vocabulary of the gateway and the cloud.

Law: nothing in this package reads a clock, a file, a socket or the environment, and nothing in
it imports another package of this project. Everything is a value or a pure function of values.
"""
