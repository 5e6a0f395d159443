"""The eval harness: student against teacher, on quality and on cost, with error bars and a verdict."""

__owner__ = "alambic"
