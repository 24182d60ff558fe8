"""The commands that are clients. `longconn.cli` starts them.

The module of a command has `parser()`, which describes its command line, and the coroutine `main(console, arguments)`,
which returns the exit status. An error is a `ClientError`: it is written as one line, and the exit status is 1.
"""
