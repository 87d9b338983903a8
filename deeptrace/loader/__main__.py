"""The loader process: `/usr/bin/python3 -I .../deeptrace/loader/__main__.py FD`. Runs with the system's Python, which has
BCC, from wherever these files lie; imports nothing but the standard library, its own folder and bcc."""

import importlib.util
import pathlib
import sys

OWN_NAME = "deeptrace_loader"  # not "deeptrace.loader": that would import the agent's package, written for another Python


def import_own_folder() -> None:
    """Make the files beside this one importable as a package, without putting any folder on the module path."""
    folder = pathlib.Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(OWN_NAME, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[OWN_NAME] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    import_own_folder()
    child = importlib.import_module(OWN_NAME + ".child")
    child.main(int(sys.argv[1]))
