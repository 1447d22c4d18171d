"""The content of `./ops/stack support-bundle`, and the removal of every secret from it."""
