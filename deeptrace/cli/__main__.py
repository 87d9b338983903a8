"""`python -m deeptrace.cli`: the same as `deeptrace`; how `up` starts its children with its own interpreter."""

from deeptrace.cli import main

if __name__ == "__main__":
    main()
