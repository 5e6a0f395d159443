"""A command that fails: as a bug, or with a full disk."""

import errno


def add_arguments(parser):
    parser.add_argument("--disk", action="store_true")


def main(args):
    if args.disk:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere")
    raise ZeroDivisionError("oops")
