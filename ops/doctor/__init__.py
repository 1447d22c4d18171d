"""The checks of `./ops/stack doctor`: one module per source of facts, with the checks of these facts."""
