"""`python -m mmjax`: the command line."""

from mmjax.cli import entry_point

if __name__ == "__main__":
    entry_point()
