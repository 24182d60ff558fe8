"""The commands that are clients: one module each, started by `longconn.cli`.

A command's module has `parser()`, what its command line is, and `main(console, arguments)`, a coroutine
that does it and gives the exit status. What goes wrong is a `ClientError`, written as one line, status 1.
"""
